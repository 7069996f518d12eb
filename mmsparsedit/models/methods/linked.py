"""Copies of a network that keep its weights and change what its layers do."""

import copy
from collections.abc import Iterator

from torch import nn

BRANCHES = ('attn', 'cross_attn', 'mlp')  # of a block: what it adds to its tokens


def linked_copy(network: nn.Module) -> nn.Module:
    """A copy of the modules of ``network`` with the same parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    if any(hasattr(tensor, 'to_local') for tensor in tensors):
        raise ValueError(
            'the method changes what layers do in a copy of the network, and its weights are '
            'sharded (FSDP): leave method and merge out, or sample the saved checkpoint.'
        )
    copied = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    for module in copied.modules():
        # activation checkpointing sets a forward on the instance that holds the original's layers
        module.__dict__.pop('forward', None)
    return copied


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network, in the order of its modules: what has an attention."""
    return (module for module in network.modules() if hasattr(module, 'attn'))
