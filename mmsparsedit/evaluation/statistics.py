"""Statistics of generated samples: Gaussian moments, Fréchet distance, inception score.

Torch, numpy and scipy only. Everything is accumulated in float64 and can be reduced over the
processes of ``torch.distributed``; the order of updates, the batch size and the number of
processes change the result by rounding only (below 1e-9 relative).

Letters: N samples, D feature dimensions, K classes of the classifier.
"""

import warnings

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from .distributed import all_reduce_, is_distributed

# ADM, evaluator.py: the diagonal offset that is used only when the matrix root is not finite.
FRECHET_OFFSET = 1e-6
# ADM, evaluator.py: an imaginary part of the root's diagonal above this is an error. Features of
# another scale than the Inception's (I3D) have another rounding, so a relative bound goes with it.
FRECHET_IMAGINARY = 1e-3
FRECHET_RELATIVE = 1e-6
# ADM, evaluator.py: number of consecutive samples in one split of the inception score.
IS_SPLIT_SIZE = 5000


class FeatureStatistics:
    """Streaming mean and covariance in float64, equal to ``np.mean`` and ``np.cov(rowvar=False)``.

    Two sets (n_a, mean_a, M_a) and (n_b, mean_b, M_b), M the sum of outer products of centred rows,
    merge to M_a + M_b + n_a n_b / (n_a + n_b) d d^T with d = mean_b - mean_a (Chan, Golub and
    LeVeque 1979). The last term is one more centred row, so an update is one matrix product.
    Memory: one (D, D) float64 matrix; the samples are not kept.

    Args:
        device: where the moments live; features are moved there. float64 is slow on consumer GPUs.
    """

    def __init__(self, device: str | torch.device = 'cpu') -> None:
        self.device = torch.device(device)
        self.count = 0
        self._mean: Tensor | None = None  # (D,)
        self._scatter: Tensor | None = None  # (D, D), sum of outer products of centred rows

    def update(self, features: Tensor | np.ndarray) -> None:
        """Take in features (N, D) of any real dtype; refuses values that are not finite."""
        features = torch.as_tensor(features).detach().to(self.device, torch.float64)
        if features.ndim != 2:
            raise ValueError(
                f'got features of shape {tuple(features.shape)}, expected (N, D): flatten them'
            )
        if len(features) == 0:
            return
        bad = (~torch.isfinite(features).all(dim=1)).sum().item()
        if bad:
            raise ValueError(
                f'got NaN or infinite features in {bad} of {len(features)} samples, expected '
                'finite ones: check the images or the weights of the feature extractor'
            )
        mean = features.mean(dim=0)
        self._add(features - mean, mean, len(features))

    def merge(self, other: 'FeatureStatistics') -> None:
        """Take in the samples that ``other`` has seen."""
        if other.count == 0:
            return
        mean = other._mean.to(self.device)
        self._add(mean.new_zeros(0, len(mean)), mean, other.count)
        self._scatter += other._scatter.to(self.device)

    def _add(self, centred: Tensor, mean: Tensor, count: int) -> None:
        """Merge ``count`` samples of the given mean; ``centred`` holds their deviations from it."""
        if self._mean is None:
            self._mean = torch.zeros_like(mean)
            self._scatter = mean.new_zeros(len(mean), len(mean))
        if mean.shape != self._mean.shape:
            raise ValueError(
                f'got features of {len(mean)} dimensions, expected {len(self._mean)} as before: '
                'use one FeatureStatistics per feature extractor'
            )
        total = self.count + count
        delta = mean - self._mean
        step = delta * (self.count * count / total) ** 0.5
        rows = torch.cat([centred, step[None]])  # (N + 1, D)
        self._scatter.addmm_(rows.T, rows)
        self._mean += delta * (count / total)
        self.count = total

    def all_reduce(self) -> None:
        """Merge over all processes; afterwards each holds the statistics of all samples.

        Does nothing without an initialised process group. A process may have seen no sample.
        """
        if not is_distributed():
            return
        dims = torch.tensor([0 if self._mean is None else len(self._mean)])
        all_reduce_(dims, 'max')
        if dims.item() == 0:
            return
        if self._mean is None:
            self._mean = torch.zeros(dims.item(), dtype=torch.float64, device=self.device)
            self._scatter = self._mean.new_zeros(dims.item(), dims.item())
        count = torch.tensor([self.count])
        all_reduce_(count)
        mean = self._mean * (self.count / count.item())
        all_reduce_(mean)
        delta = self._mean - mean
        self._scatter += self.count * torch.outer(delta, delta)
        all_reduce_(self._scatter)
        self._mean, self.count = mean, count.item()

    @property
    def mean(self) -> np.ndarray:
        """Mean (D,), float64."""
        self._require(1)
        return self._mean.cpu().numpy().copy()

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance (D, D), float64: divided by N - 1, as ADM's (``np.cov``)."""
        return self._scatter_over(self.count - 1)

    @property
    def biased_covariance(self) -> np.ndarray:
        """Covariance (D, D), float64, divided by N: as StyleGAN-V's, whose FVD is the field's."""
        return self._scatter_over(self.count)

    def _scatter_over(self, divisor: int) -> np.ndarray:
        self._require(2)
        scatter = self._scatter.cpu().numpy()
        return (scatter + scatter.T) / (2 * divisor)

    def _require(self, count: int) -> None:
        if self.count < count:
            raise ValueError(
                f'got {self.count} samples, expected at least {count}: no statistics of fewer'
            )


def frechet_distance(
    mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
    """Fréchet distance |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), Dowson and Landau 1982.

    The trace of the root is the sum of the roots of the eigenvalues of S1 S2, which is what
    ``scipy.linalg.sqrtm`` of ADM's evaluator sums, in a third to a half of its time; both agree to
    1e-13 relative, with fewer samples than dimensions to 1e-8, the rounding of a singular product.
    Where the eigenvalues leave a doubt (one is zero, or imaginary parts count) the rules are ADM's:
    the root of the plain product by ``sqrtm``; 1e-6 is added to both diagonals only if that root is
    not finite; the real part is taken.

    Args:
        mu1, mu2: means, (D,).
        sigma1, sigma2: covariances, (D, D).

    Returns:
        The distance, in squared units of the features.

    Raises:
        ValueError: shapes differ, a value is not finite, or the diagonal of the root has an
            imaginary part above 1e-3 and above 1e-6 of its largest entry.
    """
    mu1, mu2 = (np.asarray(mu, dtype=np.float64) for mu in (mu1, mu2))
    sigma1, sigma2 = (np.asarray(sigma, dtype=np.float64) for sigma in (sigma1, sigma2))
    dims = mu1.size
    for name, value, shape in (
        ('mu1', mu1, (dims,)),
        ('mu2', mu2, (dims,)),
        ('sigma1', sigma1, (dims, dims)),
        ('sigma2', sigma2, (dims, dims)),
    ):
        if value.shape != shape:
            raise ValueError(
                f'got {name} of shape {value.shape}, expected {shape}: '
                'both sides must come from the same features'
            )
        if not np.isfinite(value).all():
            raise ValueError(f'got NaN or infinity in {name}, expected finite statistics')
    delta = mu1 - mu2
    return float(
        delta @ delta + np.trace(sigma1) + np.trace(sigma2) - 2 * _trace_of_root(sigma1, sigma2)
    )


def _trace_of_root(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """Real part of tr (S1 S2)^(1/2), by the rules of ``frechet_distance``."""
    product = sigma1 @ sigma2
    roots = np.emath.sqrt(linalg.eigvals(product))
    if roots.all() and np.abs(roots.imag).sum() <= FRECHET_IMAGINARY:
        return roots.real.sum()
    with warnings.catch_warnings():
        # fewer samples than dimensions make the product singular; judged by the two checks below
        warnings.simplefilter('ignore', linalg.LinAlgWarning)
        root = linalg.sqrtm(product)
    if not np.isfinite(root).all():
        offset = np.eye(len(product)) * FRECHET_OFFSET
        root = linalg.sqrtm((sigma1 + offset) @ (sigma2 + offset))
    diagonal = np.diagonal(root)
    imaginary = np.abs(diagonal.imag).max()
    if not imaginary <= max(FRECHET_IMAGINARY, FRECHET_RELATIVE * np.abs(diagonal).max()):
        raise ValueError(
            f'got an imaginary part of {imaginary:.3g} on the diagonal of the matrix root, '
            f'expected at most {FRECHET_IMAGINARY}: the covariances are too singular, add samples'
        )
    return np.trace(root.real)


class InceptionScore:
    """Inception score exp(mean KL(p(y|x) || p(y))), mean over splits; Salimans et al. 2016.

    ADM's split rule: splits are consecutive in file order, ``split_size`` samples each, the last
    one may be shorter and counts as much; samples are not shuffled, so labels must not be sorted.
    A split is accumulated from its sums of p and of p log p, so no logits are kept, and samples
    may come in any order as long as each names its position.

    Args:
        split_size: samples of one split; 5000 in ADM.
    """

    def __init__(self, split_size: int = IS_SPLIT_SIZE) -> None:
        if split_size < 1:
            raise ValueError(f'got split_size {split_size}, expected at least 1')
        self.split_size = split_size
        self._sums: Tensor | None = None  # (splits, K + 2): sum of p, sum of p log p, count

    def update(self, logits: Tensor | np.ndarray, index: Tensor | np.ndarray) -> None:
        """Take in unbiased logits (N, K) of the samples at file positions ``index`` (N,)."""
        logits = torch.as_tensor(logits).detach().to('cpu', torch.float64)
        index = torch.as_tensor(index).to('cpu', torch.int64)
        if logits.ndim != 2 or index.shape != logits.shape[:1]:
            raise ValueError(
                f'got logits {tuple(logits.shape)} and index {tuple(index.shape)}, expected (N, K) '
                'and (N,)'
            )
        if len(index) == 0:
            return
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        entropy = (p * log_p).sum(dim=1, keepdim=True)
        rows = torch.cat([p, entropy, torch.ones_like(entropy)], dim=1)  # (N, K + 2)
        split = index // self.split_size
        self._grow(int(split.max()) + 1, rows.shape[1])
        self._sums.index_add_(0, split, rows)

    def _grow(self, splits: int, columns: int) -> None:
        sums = torch.zeros(splits, columns, dtype=torch.float64)
        if self._sums is not None:
            sums = torch.zeros(max(splits, len(self._sums)), columns, dtype=torch.float64)
            sums[: len(self._sums)] = self._sums
        self._sums = sums

    def all_reduce(self) -> None:
        """Merge over all processes; does nothing without an initialised process group."""
        if not is_distributed():
            return
        shape = torch.tensor([0, 0] if self._sums is None else list(self._sums.shape))
        all_reduce_(shape, 'max')
        if shape[0].item() == 0:
            return
        self._grow(*shape.tolist())
        all_reduce_(self._sums)

    def compute(self) -> float:
        """The score, between 1 and K."""
        if self._sums is None:
            raise ValueError('got no samples, expected at least one before the inception score')
        sums = self._sums[self._sums[:, -1] > 0]
        means = sums[:, :-1] / sums[:, -1:]
        p, entropy = means[:, :-1], means[:, -1]
        return (entropy - torch.xlogy(p, p).sum(dim=1)).exp().mean().item()


def inception_score(logits: Tensor | np.ndarray, split_size: int = IS_SPLIT_SIZE) -> float:
    """Inception score of unbiased logits (N, K) in file order; see :class:`InceptionScore`."""
    score = InceptionScore(split_size)
    score.update(logits, np.arange(len(logits)))
    return score.compute()
