"""Batches of a config's training data for tools that look at a model rather than train it."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any


def training_batches(
    generator, config: Mapping[str, Any], count: int, batch_size: int | None = None, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """``count`` collated batches on the generator's device; short data begin again.

    Args:
        config: with ``train_dataloader``.
        batch_size: by default that of the config.

    Raises:
        ValueError: the config has no training data.
    """
    from mmsparsedit.engine import DiffusionRunner

    loader = config.get('train_dataloader')
    if loader is None:
        raise ValueError('the config has no train_dataloader: name one with its training data.')
    if batch_size is not None:
        loader = {**loader, 'batch_size': batch_size}
    built = DiffusionRunner.build_dataloader(loader, seed=seed)
    return (generator.data_preprocessor(batch) for batch in islice(_forever(built), count))


def _forever(loader):
    while True:
        yield from loader
