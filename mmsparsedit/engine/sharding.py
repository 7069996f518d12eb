"""Weights, gradients, averages and optimizer state divided among processes (FSDP2).

Checkpoints stay whole: a run divided among any number of processes, or not at all, continues from
the file of any other.
"""

import copy
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from mmsparsedit.nn.flops import on_meta
from mmsparsedit.nn.sdtm import TokenRecovery
from mmsparsedit.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """A generator whose network is divided among all processes by torch's ``fully_shard``.

    Every process holds 1 / world of each weight. A layer is gathered when it runs, forward and
    backward, and its gradients are averaged and divided as they arise. Weights keep their names and
    become ``DTensor``, so that optimizers and averages work on the local parts.

    Args:
        module: a generator on the device of training, the same in every process.

    Raises:
        ImportError: torch is older than 2.6.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        try:
            from torch.distributed.fsdp import fully_shard
        except ImportError as error:
            raise ImportError(
                f'FullyShardedModel needs torch 2.6 or newer, got {torch.__version__}: upgrade, '
                'or train without model_wrapper_cfg (DDP).'
            ) from error
        # of outputs that are views: nobody changes the network's output in place
        warnings.filterwarnings('ignore', message='FSDP2-wrapped module')
        network = module.network
        network.blueprint = [on_meta(network)]  # divided modules cannot be copied
        # reshard_after_forward also of the root: sampling leaves no gathered weights behind
        options = dict(
            mesh=init_device_mesh(get_device(), (get_world_size(),)), reshard_after_forward=True
        )
        for _, layer in network.named_layers():
            if isinstance(layer, TokenRecovery):  # merges run outside the layer's forward
                fully_shard(layer.merge_sparse, **options)
                fully_shard(layer.merge_dense, **options)
            fully_shard(layer, **options)
        fully_shard(network, **options)
        self.module = module

    @contextmanager
    def gathered_network(self):
        """The network put together in every process, to change its weights.

        On leaving, the weights of the first process are divided again.
        """
        network = self.module.network
        whole = copy.deepcopy(network.blueprint[0]).to_empty(device=get_device())
        state = whole.state_dict()
        for key, value in network.state_dict().items():
            state[key].copy_(value.full_tensor() if isinstance(value, DTensor) else value)
        yield whole
        divided = network.state_dict()
        network.load_state_dict({k: _divide(v, divided[k]) for k, v in whole.state_dict().items()})

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def train_step(self, data: dict, optim_wrapper) -> dict[str, Tensor]:
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        return self.module.test_step(data)


def gather(value: Any, keep: bool) -> Any:
    """The same containers with divided tensors put together on the CPU. All processes call it.

    Args:
        keep: False takes part without keeping what was gathered (None in its place).
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: gather(inner, keep) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [gather(inner, keep) for inner in value]
    return value


def shard_checkpoint(checkpoint: dict, model: nn.Module, optimizer) -> None:
    """Divide a whole checkpoint's weights, averages and optimizer state as the model is, in place.

    All processes call it with the same checkpoint.

    Args:
        model: divided generator; optimizer: of its weights.
    """
    weights = model.state_dict()
    for part in ('state_dict', 'ema_state_dict'):
        if part in checkpoint:
            checkpoint[part] = {
                key: _divide(value, weights.get(key.removeprefix('module.')))
                for key, value in checkpoint[part].items()
            }
    saved = checkpoint['optimizer']
    places = [i for group in saved['param_groups'] for i in group['params']]
    params = [param for group in optimizer.param_groups for param in group['params']]
    like = dict(zip(places, params, strict=False))  # the optimizer itself refuses another number
    saved['state'] = {
        i: {name: _divide(value, like.get(i)) for name, value in state.items()}
        for i, state in saved['state'].items()
    }


def _divide(value: Any, like: Tensor | None) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)
