"""Activation checkpointing: memory of activations against one more forward pass."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_layers(network: nn.Module) -> None:
    """Make every layer of ``network`` keep its inputs only and run again in the backward pass.

    Non-reentrant; no random state is kept, since no layer draws any. Names of weights stay.

    Args:
        network: has ``named_layers``.
    """
    for _, layer in network.named_layers():
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
        )
