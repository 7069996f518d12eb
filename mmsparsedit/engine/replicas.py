"""The whole model in every process, gradients averaged among them (DDP)."""

import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from mmsparsedit.registry import MODEL_WRAPPERS

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@MODEL_WRAPPERS.register_module()
class ReplicatedModel(MMDistributedDataParallel):
    """MMEngine's DDP, whose gradients are views of the buckets that processes exchange.

    No second copy of the gradients is kept, and none is made.

    Args:
        gradient_dtype: in which gradients are exchanged and summed. ``'bfloat16'`` sends half the
            bytes and rounds to 8 bits; between machines where the network is the slowest part.
        options: of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, gradient_dtype: str = 'float32', **options) -> None:
        check_dtype('gradient_dtype', gradient_dtype)
        super().__init__(module, **{'gradient_as_bucket_view': True, **options})
        if gradient_dtype == 'bfloat16':
            self.register_comm_hook(None, bf16_compress_hook)


def check_dtype(name: str, dtype: str) -> torch.dtype:
    """The dtype of a name in a config; raises ``ValueError`` for any but the two."""
    if dtype not in DTYPES:
        raise ValueError(f'{name} must be one of {", ".join(DTYPES)}, got {dtype!r}.')
    return DTYPES[dtype]
