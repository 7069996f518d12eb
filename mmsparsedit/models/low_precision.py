"""A copy of a network that samples in bf16, its large linear maps in fp8 where asked for."""

import copy

import torch
from torch import Tensor, nn

from mmsparsedit.nn import TimestepEmbedder, TokenRecovery

FP8_CAPABILITY = (8, 9)  # Ada; Hopper is (9, 0)


class SamplingCopy:
    """A frozen copy of a network with its linear maps in ``dtype``, some of them in fp8.

    Timestep embedding and last layer stay as they are and compute in float32 inside autocast. W2 of
    a merge keeps float32 weights, from which ``TokenRecovery`` takes the identity.

    Args:
        stream: ``'bfloat16'`` holds position tables and modulation tables in ``dtype`` too, so
            that tokens between layers have that dtype.
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, fp8: bool = False, stream: str = 'float32'
    ) -> None:
        if is_sharded(network):
            raise ValueError(
                'bf16 and fp8 sample from a copy of the network, and its weights are sharded '
                '(FSDP): leave dtype and fp8 out, or sample the saved checkpoint.'
            )
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        # activation checkpointing sets a forward on the instance that holds the original's weights
        for module in frozen.modules():
            module.__dict__.pop('forward', None)
        exact = {n: m for n, m in frozen.named_modules() if isinstance(m, TimestepEmbedder)}
        exact['final_layer'] = frozen.final_layer
        kept = {id(inner) for module in exact.values() for inner in module.modules()}
        if stream == 'bfloat16':
            for module in frozen.modules():
                for key in ('pos_embed', 'temp_embed', 'scale_shift_table'):
                    table = getattr(module, key, None)
                    if isinstance(table, Tensor) and id(module) not in kept:
                        table.data = table.data.to(dtype)
        else:
            recoveries = (m for m in frozen.modules() if isinstance(m, TokenRecovery))
            kept |= {id(recovery.merge_dense) for recovery in recoveries}
        for module in frozen.modules():
            if isinstance(module, nn.Linear) and id(module) not in kept:
                for key, weight in list(module.named_parameters(recurse=False)):
                    setattr(module, key, nn.Parameter(weight.to(dtype), requires_grad=False))
        self._fp8 = set()
        for name, module in fp8_layers(frozen).items() if fp8 else ():
            _quantize(module)
            module.register_forward_pre_hook(_to_bfloat16)
            self._fp8.add(f'{name}.weight')
        self._tensors = {**dict(frozen.named_parameters()), **dict(frozen.named_buffers())}
        for name, module in exact.items():
            owner, _, last = name.rpartition('.')
            setattr(frozen.get_submodule(owner), last, Float32(module))
        self.network = frozen

    @torch.no_grad()
    def take_weights(self, network: nn.Module) -> None:
        """Cast the weights of ``network`` into place: compiled and captured stages see them."""
        source = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        plain = [key for key in self._tensors if key not in self._fp8]
        torch._foreach_copy_([self._tensors[k] for k in plain], [source[k] for k in plain])
        for key in self._fp8:
            fresh = nn.Linear(1, 1, bias=False, device='meta')
            fresh.weight = nn.Parameter(source[key].to(torch.bfloat16), requires_grad=False)
            _quantize(fresh)
            self._tensors[key].copy_(fresh.weight)


def is_sharded(network: nn.Module) -> bool:
    """Whether its weights are split among processes (FSDP)."""
    return any(hasattr(p, 'to_local') for p in network.parameters())


class Float32(nn.Module):
    """A module that computes in float32 inside autocast."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self.inner(*(x.float() for x in inputs))


def fp8_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps that may compute in float8, by name: the large ones inside the blocks.

    MLPs, projections, and queries, keys and values of blocks that read their own tokens. Not:
    embedders, last layer, modulation, pooling (one token), merges (near the identity), and the
    qkv of token generation and recovery, whose weight is split between two inputs. A module names
    its own by ``fp8_linears``.
    """
    reading_others = {
        id(getattr(layer, 'block', layer).attn)
        for module in network.modules()
        for group in ('generation', 'recovery')
        for layer in getattr(module, group, ())
    }
    found = {}
    for name, module in network.named_modules():
        for linear in getattr(module, 'fp8_linears', ()):
            if linear != 'qkv' or id(module) not in reading_others:
                found[f'{name}.{linear}'] = getattr(module, linear)
    return found


def check_fp8(device: torch.device) -> None:
    """Raise ValueError or ImportError where float8 cannot run."""
    needed = f'fp8 needs a CUDA GPU of capability {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]} or above'
    if device.type != 'cuda':
        raise ValueError(f'{needed} (Ada, Hopper), the network is on {device}: leave fp8 out.')
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        raise ValueError(f'{needed}, this one has {capability[0]}.{capability[1]}: leave fp8 out.')


def _quantize(linear: nn.Linear) -> None:
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError as error:
        raise ImportError('fp8 needs torchao: pip install torchao, or leave fp8 out.') from error
    quantize_(linear, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))


def _to_bfloat16(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Before a float8 layer, which autocast does not know: rows are scaled from bf16."""
    return tuple(x.to(torch.bfloat16) for x in inputs)
