"""Linear maps fitted in closed form, of which a merge (SparseDiT, Eq. 3) is one.

B batch, N dense, M sparse tokens, C width.
"""

import torch
from torch import Tensor, nn

from .resample import Grid, upsample_tokens
from .sdtm import TokenRecovery


class Ridge:
    """Ridge regression of targets (..., K) on features (..., D), over any number of batches.

    What is fitted is added to a map that is known: the penalty is on the distance from it, so that
    what the batches do not determine stays. A bias is fitted beside the weights and not penalised.
    Sums are float64.

    Args:
        ridge: penalty relative to the mean square of a feature; positive.
    """

    def __init__(
        self, features: int, targets: int, ridge: float, device: torch.device | str | None = None
    ) -> None:
        if not ridge > 0:
            raise ValueError(f'ridge must be positive, got {ridge}: 1e-3 is usual.')
        self.ridge = ridge
        options = dict(dtype=torch.float64, device=device)
        self.gram = torch.zeros(features + 1, features + 1, **options)
        self.cross = torch.zeros(features + 1, targets, **options)
        self.error = torch.zeros(2, **options)  # squares: target - known, target

    @torch.no_grad()
    def update(self, features: Tensor, target: Tensor, known: Tensor) -> None:
        """Add a batch: ``target`` (..., K), and ``known``, what the known map makes of it."""
        features = torch.cat([features, torch.ones_like(features[..., :1])], -1)
        features = features.flatten(0, -2).double()
        target, known = target.flatten(0, -2).double(), known.flatten(0, -2).double()
        self.gram += features.T @ features
        self.cross += features.T @ (target - known)
        self.error += torch.stack([(target - known).square().sum(), target.square().sum()])

    @torch.no_grad()
    def solve(self) -> tuple[Tensor, Tensor, tuple[float, float]]:
        """Weight (K, D) and bias (K,) to add to the known map, and the error they leave.

        The error is squared, over the batches, relative to the target's square: of the known map,
        and fitted.

        Raises:
            ValueError: no batch was seen.
        """
        if not self.gram[-1, -1]:
            raise ValueError('no batch to fit to: call update at least once.')
        penalty = self.gram.diagonal().clone()
        penalty[:-1] = self.ridge * penalty[:-1].mean()
        penalty[-1] = 0
        solution = torch.linalg.solve(self.gram + penalty.diag(), self.cross)
        start, square = self.error.tolist()
        gained = (solution * (2 * self.cross - self.gram @ solution)).sum().item()
        return solution[:-1].T, solution[-1], (start / square, (start - gained) / square)


class LinearFit:
    """A ``nn.Linear`` fitted to targets; the penalty is on the distance from what it was."""

    def __init__(self, linear: nn.Linear, ridge: float = 1e-3) -> None:
        self.linear = linear
        self.fit = Ridge(linear.in_features, linear.out_features, ridge, linear.weight.device)

    @torch.no_grad()
    def update(self, x: Tensor, target: Tensor) -> None:
        """Add a batch of inputs (..., C_in) and the outputs (..., C_out) that they should give."""
        self.fit.update(x, target, self.linear(x))

    @torch.no_grad()
    def apply(self) -> tuple[float, float]:
        """Change the map; returns the errors of ``Ridge.solve``."""
        weight, bias, errors = self.fit.solve()
        self.linear.weight.add_(weight)
        self.linear.bias.add_(bias)
        return errors


class MergeFit:
    """W1 and W2 of one recovery, over any number of batches and grids.

    The penalty is on the distance from the paper's start, W1 = 0 and W2 = I (Sec. 3.3).

    Args:
        recovery: its merge is replaced by ``apply``.
        ridge: see ``Ridge``.
    """

    def __init__(self, recovery: TokenRecovery, ridge: float = 1e-3) -> None:
        self.recovery = recovery
        width = recovery.merge_dense.in_features
        self.fit = Ridge(2 * width, width, ridge, recovery.merge_dense.weight.device)

    @torch.no_grad()
    def update(self, x: Tensor, sparse: Tensor, target: Tensor, grid: Grid, dense: Grid) -> None:
        """Add a batch: ``x`` and ``target`` (B, N, C), the merge wanted before any position
        table; ``sparse`` (B, M, C) on ``grid``; ``dense`` is the grid of ``x``."""
        up = upsample_tokens(sparse, grid, dense, self.recovery.upsample)
        self.fit.update(torch.cat([up, x], -1), target, x)

    @torch.no_grad()
    def apply(self) -> tuple[float, float]:
        """Write the fitted weights into the recovery; returns the errors of ``Ridge.solve``."""
        weight, bias, errors = self.fit.solve()
        sparse, dense = weight.chunk(2, dim=1)
        self.recovery.init_merge()
        self.recovery.merge_sparse.weight.copy_(sparse)
        self.recovery.merge_dense.weight.add_(dense)
        self.recovery.merge_dense.bias.copy_(bias)
        return errors
