"""Weights, gradients, averages and optimizer state sharded over processes (FSDP2).

Checkpoints stay whole: a run sharded over any number of processes, or not at all, continues from
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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from mmsparsedit.nn.meta import on_meta
from mmsparsedit.registry import MODEL_WRAPPERS

from .replicas import check_dtype


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """A generator whose network is sharded over all processes by torch's ``fully_shard``.

    Every process holds 1 / world of each weight. A layer is gathered when it runs, forward and
    backward, and its gradients are averaged and sharded as they arise. Weights keep their names and
    become ``DTensor``, so that optimizers and averages work on the local parts.

    Args:
        module: a generator on the device of training, the same in every process.
        weight_dtype: in which the weights of layers are gathered. ``'bfloat16'`` sends half the
            bytes; layers then run under bf16 autocast, in sampling too. What each process holds
            and updates stays float32, and so do embedding and head.
        gradient_dtype: in which gradients of layers are exchanged and summed.
        shard_size: successive processes that share one copy of the weights, such as those of one
            machine (HSDP): nothing is gathered beyond them, and only gradients are exchanged
            between copies. None shares one among all.
    """

    def __init__(
        self,
        module: nn.Module,
        weight_dtype: str = 'float32',
        gradient_dtype: str = 'float32',
        shard_size: int | None = None,
    ) -> None:
        from torch.distributed.fsdp import (
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        super().__init__()
        # of outputs that are views: nobody changes the network's output in place
        warnings.filterwarnings('ignore', message='FSDP2-wrapped module')
        network = module.network
        network.blueprint = [on_meta(network)]  # sharded modules cannot be copied
        # reshard_after_forward also of the root: sampling leaves no gathered weights behind
        options = dict(mesh=_mesh(shard_size), reshard_after_forward=True)
        gathered = check_dtype('weight_dtype', weight_dtype)
        policy = MixedPrecisionPolicy(
            param_dtype=gathered,
            reduce_dtype=check_dtype('gradient_dtype', gradient_dtype),
            cast_forward_inputs=False,  # tokens between layers stay float32
        )
        for _, layer in network.named_layers():
            if gathered != torch.float32:
                cast = torch.autocast(get_device(), gathered, cache_enabled=False)
                layer.forward = cast(layer.forward)
            fully_shard(layer, mp_policy=policy, **options)
        fully_shard(network, **options)
        for part in ('embed', 'head'):  # a step cache calls them one by one
            register_fsdp_forward_method(network, part)
        self.module = module

    @contextmanager
    def gathered_network(self):
        """The network gathered in every process, to change its weights.

        On leaving, the weights of the first process are sharded again.
        """
        network = self.module.network
        whole = copy.deepcopy(network.blueprint[0]).to_empty(device=get_device())
        state = whole.state_dict()
        for key, value in network.state_dict().items():
            state[key].copy_(value.full_tensor() if isinstance(value, DTensor) else value)
        yield whole
        sharded = network.state_dict()
        network.load_state_dict({k: _shard(v, sharded[k]) for k, v in whole.state_dict().items()})

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def train_step(self, data: dict, optim_wrapper) -> dict[str, Tensor]:
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        return self.module.test_step(data)


def _mesh(shard_size: int | None) -> DeviceMesh:
    """All processes in a row, or (copies, processes of a copy)."""
    world = get_world_size()
    if shard_size is None:
        return init_device_mesh(get_device(), (world,))
    if shard_size < 1 or world % shard_size:
        raise ValueError(
            f'shard_size {shard_size} does not divide the {world} processes: use the GPUs of a '
            'machine, or None for all.'
        )
    names = ('replicate', 'shard')
    return init_device_mesh(get_device(), (world // shard_size, shard_size), mesh_dim_names=names)


def gather(value: Any, keep: bool) -> Any:
    """The same containers with sharded tensors gathered on the CPU. All processes call it.

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
    """Shard a whole checkpoint's weights, averages and optimizer state as the model is, in place.

    All processes call it with the same checkpoint.

    Args:
        model: sharded generator; optimizer: of its weights.
    """
    weights = model.state_dict()
    for part in ('state_dict', 'ema_state_dict'):
        if part in checkpoint:
            checkpoint[part] = {
                key: _shard(value, weights.get(key.removeprefix('module.')))
                for key, value in checkpoint[part].items()
            }
    saved = checkpoint['optimizer']
    places = [i for group in saved['param_groups'] for i in group['params']]
    params = [param for group in optimizer.param_groups for param in group['params']]
    like = dict(zip(places, params, strict=False))  # the optimizer itself refuses another number
    saved['state'] = {
        i: {name: _shard(value, like.get(i)) for name, value in state.items()}
        for i, state in saved['state'].items()
    }


def _shard(value: Any, like: Tensor | None) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)
