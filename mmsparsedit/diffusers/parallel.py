"""One sample on several devices: the MLPs of a sparse model, split by torch's own means."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from mmsparsedit.nn.blocks import Mlp


def split_mlps(transformer: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Tensor parallelism (Shoeybi et al. 2019) of every MLP: each process keeps a share of it.

    Tokens and grids stay whole, so it holds for every stage; each MLP ends in one sum over the
    processes. MLPs make two thirds of the multiply-adds of a layer's linear maps. For sampling: the
    weights become ``DTensor``.

    Args:
        mesh: of one dimension, on the device of the transformer; its size divides the MLPs' width.

    Returns:
        The transformer, changed in place.
    """
    plan = {}
    for name, module in transformer.named_modules():
        if isinstance(module, Mlp):
            if module.fc1.out_features % mesh.size():
                raise ValueError(
                    f'{mesh.size()} processes do not divide the width {module.fc1.out_features} of '
                    f'{name}: choose another number of them.'
                )
            plan[f'{name}.fc1'] = ColwiseParallel()
            plan[f'{name}.fc2'] = RowwiseParallel()
    return parallelize_module(transformer, mesh, plan)


def register_cache_dit() -> None:
    """Teach cache-dit's tensor parallelism (``ParallelismConfig(tp_size=...)``) these models."""
    from cache_dit.distributed.transformers.planners import _activate_tp_planners
    from cache_dit.distributed.transformers.register import (
        TensorParallelismPlanner,
        TensorParallelismPlannerRegister,
    )

    registered = TensorParallelismPlannerRegister.supported_planners()[1]
    if not registered:  # it adds its own only to an empty list
        _activate_tp_planners()
    if 'Sparse' in registered:
        return

    @TensorParallelismPlannerRegister.register('Sparse')  # how the classes' names begin
    class SparsePlanner(TensorParallelismPlanner):
        def _apply(self, transformer, parallelism_config, **unused):
            device = next(transformer.parameters()).device.type
            mesh = init_device_mesh(device, (parallelism_config.tp_size,))
            return split_mlps(transformer, mesh), []
