"""Improved precision and recall by k-nearest neighbours, Kynkäänniemi et al. 2019, ADM's rules.

Letters: N and M numbers of samples, D feature dimensions. Distances are squared throughout.
"""

import torch
from torch import Tensor

# ADM, evaluator.py: neighbourhood size and side of the blocks of the distance matrix. The side is
# part of the rule: a block that overflows float16 is computed in float32, its neighbours are not.
NEAREST_K = 3
BLOCK_SIZE = 10_000
# rows computed at once inside a block; bounds the temporaries, does not change the result
STRIP_ROWS = 1_000


def pairwise_distances(u: Tensor, v: Tensor, out: Tensor | None = None) -> Tensor:
    """Squared distances |u|^2 - 2 u.v + |v|^2, at least 0, of one block: float16, else float32.

    ADM's rule: features are cast to float16 and every step is rounded to float16; if any distance
    of the block is not finite, the whole block is computed in float32. Products are summed in
    float32 before they are rounded, as the tensor cores of the original do.

    Args:
        u, v: features (N, D) and (M, D), float32.
        out: where to write, (N, M) float32; allocated if None.

    Returns:
        Distances (N, M) in float32, in squared units of the features.
    """
    if out is None:
        out = torch.empty(len(u), len(v), dtype=torch.float32, device=u.device)
    if not _half_distances(u.half(), v.half(), out):
        _float_distances(u.float(), v.float(), out)
    return out


def _half_distances(u: Tensor, v: Tensor, out: Tensor) -> bool:
    """Write the float16 distances to ``out``; False, and no more work, at the first overflow."""
    norm_u, norm_v = (x.square().float().sum(dim=1).half() for x in (u, v))
    if not (norm_u.isfinite().all() and norm_v.isfinite().all()):
        return False
    v = v.float()
    for start in range(0, len(u), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        product = (u[rows].float() @ v.T).half()
        strip = norm_u[rows, None] - 2 * product
        strip += norm_v
        # max(nan, 0) is nan in torch as in TensorFlow, so the clamp hides no overflow
        out[rows] = strip.clamp_(min=0)
        if not out[rows].isfinite().all():
            return False
    return True


def _float_distances(u: Tensor, v: Tensor, out: Tensor) -> None:
    norm_u, norm_v = (x.square().sum(dim=1) for x in (u, v))
    for start in range(0, len(u), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        strip = norm_u[rows, None] - 2 * (u[rows] @ v.T)
        out[rows] = strip.add_(norm_v).clamp_(min=0)


class ManifoldEstimator:
    """Balls around every sample that reach to its k-th neighbour (the manifold of a sample set).

    Memory: the features and one block of block_size x block_size float32, 400 MB at 10 000.

    Args:
        k: neighbour that gives the radius, the sample itself not counted; 3 in ADM.
        block_size: side of the blocks of the float16 rule; 10 000 in ADM.
        device: where blocks are computed; features may live elsewhere.
    """

    def __init__(
        self,
        k: int = NEAREST_K,
        block_size: int = BLOCK_SIZE,
        device: str | torch.device = 'cpu',
    ) -> None:
        if k < 1 or block_size < 1:
            raise ValueError(f'got k {k} and block_size {block_size}, expected at least 1')
        self.k = k
        self.block_size = block_size
        self.device = torch.device(device)
        self._buffer: Tensor | None = None

    def _blocks(self, features: Tensor) -> list[Tensor]:
        return list(features.split(self.block_size))

    def _distances(self, u: Tensor, v: Tensor) -> Tensor:
        """Distances of one block, in a buffer that the next call overwrites."""
        if self._buffer is None or self._buffer.numel() < len(u) * len(v):
            self._buffer = None  # freed before the larger one is made
            self._buffer = torch.empty(len(u) * len(v), dtype=torch.float32, device=self.device)
        out = self._buffer[: len(u) * len(v)].view(len(u), len(v))
        return pairwise_distances(u.to(self.device), v.to(self.device), out)

    def radii(self, features: Tensor) -> Tensor:
        """Squared distance of each of the features (N, D) to its k-th neighbour, (N,) float32.

        The k + 1 smallest distances are taken with the sample itself among them, as ADM does.
        """
        features = _check(features, 'features')
        if len(features) <= self.k:
            raise ValueError(
                f'got {len(features)} samples, expected more than k = {self.k}: add samples'
            )
        radii = []
        for u in self._blocks(features):
            nearest = torch.empty(len(u), 0, device=self.device)
            for v in self._blocks(features):
                block = self._distances(u, v)
                k = min(self.k + 1, len(v))
                smallest = block.topk(k, dim=1, largest=False, sorted=False).values
                nearest = torch.cat([nearest, smallest], dim=1)
                k = min(self.k + 1, nearest.shape[1])
                nearest = nearest.topk(k, dim=1, largest=False).values
            radii.append(nearest[:, self.k].cpu())
        return torch.cat(radii)

    def evaluate(self, reference: Tensor, samples: Tensor) -> tuple[float, float]:
        """Precision and recall of samples (N, D) against the reference (M, D).

        Precision is the share of samples inside (<=) the ball of some reference, recall the share
        of references inside the ball of some sample. ADM uses 50 000 against 10 000.
        """
        reference, samples = _check(reference, 'reference'), _check(samples, 'samples')
        if reference.shape[1] != samples.shape[1]:
            raise ValueError(
                f'got samples of {samples.shape[1]} dimensions, expected {reference.shape[1]} as '
                'the reference: both sides must come from the same features'
            )
        reference_radii, sample_radii = self.radii(reference), self.radii(samples)
        covered = torch.zeros(len(reference), dtype=torch.bool)  # (M,)
        inside = torch.zeros(len(samples), dtype=torch.bool)  # (N,)
        size = self.block_size
        for row, u in enumerate(self._blocks(reference)):
            rows = slice(row * size, row * size + len(u))
            for column, v in enumerate(self._blocks(samples)):
                columns = slice(column * size, column * size + len(v))
                block = self._distances(u, v)  # (references, samples)
                row_radii = reference_radii[rows, None].to(self.device)
                column_radii = sample_radii[columns].to(self.device)
                inside[columns] |= (block <= row_radii).any(dim=0).cpu()
                covered[rows] |= (block <= column_radii).any(dim=1).cpu()
        return inside.double().mean().item(), covered.double().mean().item()


def precision_recall(
    reference: Tensor, samples: Tensor, k: int = NEAREST_K, device: str | torch.device = 'cpu'
) -> tuple[float, float]:
    """Precision and recall of samples (N, D) against the reference (M, D), both in [0, 1]."""
    return ManifoldEstimator(k, device=device).evaluate(reference, samples)


def _check(features: Tensor, name: str) -> Tensor:
    features = torch.as_tensor(features).detach().float()
    if features.ndim != 2:
        raise ValueError(f'got {name} of shape {tuple(features.shape)}, expected (N, D)')
    if not features.isfinite().all():
        raise ValueError(f'got NaN or infinity in {name}, expected finite features')
    return features
