"""A merge (SparseDiT, Eq. 3) fitted in closed form. B batch, N dense, M sparse tokens, C width."""

import torch
from torch import Tensor

from .resample import Grid, upsample_tokens
from .sdtm import TokenRecovery


class MergeFit:
    """Ridge regression of W1 and W2 of one recovery, over any number of batches and grids.

    The penalty is on the distance from the paper's start, W1 = 0 and W2 = I (Sec. 3.3): what
    the batches do not determine stays there. Sums are float64. The bias is not penalised.

    Args:
        recovery: its merge is replaced by ``apply``.
        ridge: penalty relative to the mean square of a feature; positive.
    """

    def __init__(self, recovery: TokenRecovery, ridge: float = 1e-3) -> None:
        if not ridge > 0:
            raise ValueError(f'ridge must be positive, got {ridge}: 1e-3 is usual.')
        self.recovery, self.ridge = recovery, ridge
        width = recovery.merge_dense.in_features
        device = recovery.merge_dense.weight.device
        self.gram = torch.zeros(2 * width + 1, 2 * width + 1, dtype=torch.float64, device=device)
        self.cross = torch.zeros(2 * width + 1, width, dtype=torch.float64, device=device)
        self.error = torch.zeros(
            2, dtype=torch.float64, device=device
        )  # squares: target - x, target

    @torch.no_grad()
    def update(self, x: Tensor, sparse: Tensor, target: Tensor, grid: Grid, dense: Grid) -> None:
        """Add a batch: ``x`` and ``target`` (B, N, C), the merge wanted before any position
        table; ``sparse`` (B, M, C) on ``grid``; ``dense`` is the grid of ``x``."""
        up = upsample_tokens(sparse, grid, dense, self.recovery.upsample)
        features = torch.cat([up, x, torch.ones_like(x[..., :1])], -1).flatten(0, -2).double()
        self.gram += features.T @ features
        wanted = target.flatten(0, -2).double()
        residual = wanted - x.flatten(0, -2).double()  # from W1 = 0, W2 = I
        self.cross += features.T @ residual
        self.error += torch.stack([residual.square().sum(), wanted.square().sum()])

    @torch.no_grad()
    def apply(self) -> tuple[float, float]:
        """Write the fitted weights into the recovery.

        Returns:
            Squared error of the merge over the batches, relative to the target's square: as the
            paper starts, and fitted.

        Raises:
            ValueError: no batch was seen.
        """
        width = self.cross.shape[1]
        if not self.gram[-1, -1]:
            raise ValueError('no batch to fit the merge to: call update at least once.')
        penalty = self.gram.diagonal().clone()
        penalty[:-1] = self.ridge * penalty[:-1].mean()
        penalty[-1] = 0
        solution = torch.linalg.solve(self.gram + penalty.diag(), self.cross)
        self.recovery.init_merge()
        self.recovery.merge_sparse.weight.copy_(solution[:width].T)
        self.recovery.merge_dense.weight.add_(solution[width:-1].T)
        self.recovery.merge_dense.bias.copy_(solution[-1])
        start, square = self.error.tolist()
        gained = (solution * (2 * self.cross - self.gram @ solution)).sum().item()
        return start / square, (start - gained) / square
