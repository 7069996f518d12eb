"""How far a quick way to run a network is from exact float32, at every stage."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from .benchmark import Case, build_generator, random_request
from .clock import machine

WAYS = {
    'tf32': dict(dtype='tf32'),
    'bf16': dict(dtype='bfloat16'),
    'bf16, stream too': dict(dtype='bfloat16', stream='bfloat16'),
    'bf16, GELU in the product': dict(dtype='bfloat16', gelu_epilogue=True),
    'fp8': dict(dtype='bfloat16', fp8=True),
}


def deviations(case: Case, read: Callable[[str, dict], dict]) -> dict:
    """Deviations of ``WAYS`` from exact float32, of one guided call at each stage.

    Weights are random and not zero, as in ``benchmark``.

    Args:
        read: (path of a config, keys to change in it) -> config of its generator.

    Returns:
        JSON values: ``grids`` and, for each way, ``deviations``: root mean square of the deviation
        over that of the output, by stage; or, where it cannot run, its error.
    """
    torch.manual_seed(0)
    generator = build_generator(
        read(case.config, case.options), replace(case, dtype='fp32', acceleration={})
    )
    generator.accelerate()
    batch = case.batch if isinstance(case.batch, int) else max(case.batch)
    request = random_request(generator, batch)
    x = torch.randn(batch, *generator.data_shape, device=case.device)
    stages = [] if generator.prune is None else generator.prune.stages
    times = [stage.t_start for stage in stages] or [0]

    def outputs() -> list[torch.Tensor]:
        model = generator.denoiser(batch, **request)
        return [model(x, t) for t in times]

    exact, found = outputs(), {}
    for name, options in WAYS.items():
        try:
            generator.accelerate(**options)
            found[name] = [
                relative_deviation(out, right) for out, right in zip(outputs(), exact, strict=True)
            ]
        except (ValueError, ImportError, RuntimeError) as error:  # not on this device
            found[name] = f'{type(error).__name__}: {error}'
    return dict(
        setting=asdict(case),
        **machine(case.device),
        grids=[list(stage.grid) for stage in stages],
        deviations=found,
    )


def relative_deviation(output: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference over that of ``exact``."""
    return ((output - exact).square().mean() / exact.square().mean()).sqrt().item()
