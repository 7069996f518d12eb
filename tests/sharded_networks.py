"""In each of several gloo processes: has a sharded network the mean gradients of whole ones?"""

import copy

import torch
import torch.distributed as dist
from torch import nn

import mmsparsedit.models  # noqa: F401
from mmsparsedit.engine import FullyShardedModel
from mmsparsedit.engine.recompute import recompute_layers
from mmsparsedit.models.methods import ResidualCache
from mmsparsedit.registry import MODELS

SHAPE = dict(hidden_size=24, num_heads=2, num_bottom=1, num_sdtm=1, num_top=1)
NETWORKS = {
    'SparseDiT': dict(SHAPE, input_size=16, num_classes=5),
    'SparseLatte': dict(SHAPE, input_size=8, num_frames=4, num_classes=5, num_bottom=2, num_top=2),
    'SparsePixArt': dict(SHAPE, input_size=16, caption_channels=8, model_max_length=4),
}
GRIDS = {'SparseDiT': (4, 4), 'SparseLatte': (2, 2, 2), 'SparsePixArt': (4, 4)}


class Generator(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def difference(kind: str, recompute: bool = False, **options) -> float:
    """The largest difference of a gradient, relative to the largest gradient.

    Also that of the parts that a step cache calls one by one, which comes before any gradient.

    Args:
        options: of ``FullyShardedModel``; with weights in bf16 the whole network is under autocast.
    """
    low = options.get('weight_dtype') == 'bfloat16'
    cast = torch.autocast('cpu', torch.bfloat16, enabled=low, cache_enabled=False)
    torch.manual_seed(0)
    whole = MODELS.build(dict(type=kind, **NETWORKS[kind]))
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.05 * torch.randn_like(p))
        for _, layer in whole.named_layers() if low else ():  # what gathering does to them
            for p in layer.parameters():
                p.copy_(p.bfloat16())
    model = FullyShardedModel(Generator(copy.deepcopy(whole)), **options)
    if recompute:
        recompute_layers(model.module.network)
    torch.manual_seed(1 + dist.get_rank())
    inputs = whole.example_inputs(3)
    inputs['x'] = torch.randn_like(inputs['x'])
    inputs['t'] = 1000 * torch.rand_like(inputs['t'])
    x, t, *_ = inputs.values()
    condition = {key: value for key, value in inputs.items() if key not in ('x', 't')}
    cached = []
    with torch.no_grad(), cast:
        for network in (whole, model.module.network):
            parts = ResidualCache(2).parts(network)
            output, residual = parts.compute(x, t, GRIDS[kind], condition)
            cached += [output, parts.reuse(x, t, residual, GRIDS[kind], condition)]
    for network in (whole, model.module.network):
        with cast:
            loss = network(**inputs, grid=GRIDS[kind]).float().square().mean()
        loss.backward()
    sharded = dict(model.module.network.named_parameters())
    world, size = dist.get_world_size(), options.get('shard_size')
    copies = (world // size, size) if size else (world,)
    assert {p.device_mesh.shape for p in sharded.values()} == {copies}
    largest, worst = 0.0, max((cached[i] - cached[i + 2]).abs().max().item() for i in range(2))
    for name, p in whole.named_parameters():
        dist.all_reduce(p.grad.div_(dist.get_world_size()))
        worst = max(worst, (p.grad - sharded[name].grad.full_tensor()).abs().max().item())
        largest = max(largest, p.grad.abs().max().item())
    return worst / largest
