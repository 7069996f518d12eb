"""On a real GPU: every lever gives the plain numbers, and no step waits for the device.

Without one these tests skip; ``test_gpu_path.py`` imitates what it can.
"""

import contextlib

import pytest
import torch
from mmengine.logging import MessageHub

from mmsparsedit.engine import Bf16OptimWrapper, ForeachEMA

from accelerated import NETWORKS, at_each_stage, build, error, request, sampled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
DEVICE = 'cuda'


@contextlib.contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.fixture(autouse=True)
def exact_products():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    yield
    torch.set_float32_matmul_precision(before)
    torch._dynamo.reset()


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize(
    'levers', [dict(compile=True), dict(cuda_graphs=True), dict(compile=True, cuda_graphs=True)],
    ids=' '.join,
)  # fmt: skip
def test_compiled_and_captured_are_eager(kind, levers):
    generator = build(kind, cfg_interval=(200, 700)).to(DEVICE)
    expected, stages = sampled(generator), at_each_stage(generator)
    generator.accelerate(**levers)
    torch.testing.assert_close(sampled(generator), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sampled(generator), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(at_each_stage(generator), stages, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('levers', [{}, dict(compile=True, cuda_graphs=True)], ids=' '.join)
def test_low_precision_deviates_by_its_rounding(kind, levers):
    generator = build(kind).to(DEVICE)
    expected = at_each_stage(generator)
    bf16 = dict(dtype='bfloat16')
    options = [
        (bf16, 2e-2),
        (dict(bf16, gelu_epilogue=True, attention='measured'), 2e-2),
        (dict(bf16, stream='bfloat16'), 5e-2),
        (dict(auto=True), 2e-2),
    ]
    if torch.cuda.get_device_capability() >= (8, 9):
        pytest.importorskip('torchao')
        options.append((dict(bf16, fp8=True), 0.2))
    for option, bound in options:
        generator.accelerate(**option, **levers)
        for output, reference in zip(at_each_stage(generator), expected, strict=True):
            assert 1e-5 < error(output, reference) < bound


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('levers', [dict(dtype='tf32'), dict(attention='measured')], ids=' '.join)
def test_float32_levers_deviate_little(kind, levers):
    generator = build(kind).to(DEVICE)
    expected = at_each_stage(generator)
    generator.accelerate(**levers)
    for output, reference in zip(at_each_stage(generator), expected, strict=True):
        assert error(output, reference) < 5e-3
    assert torch.get_float32_matmul_precision() == 'highest'


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('levers', [{}, dict(cuda_graphs=True, dtype='bfloat16')], ids=' '.join)
def test_no_step_of_sampling_waits(kind, levers):
    generator = build(kind, acceleration=levers).to(DEVICE)
    sampled(generator)  # captures
    model = generator.denoiser(3, **request(generator, 3))  # looks at the labels
    x = torch.randn(3, *generator.data_shape, device=DEVICE)
    with no_waiting():
        out = generator.sampler(model, x, generator.diffusion, lambda: torch.randn_like(x))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('compiled', [False, True])
def test_no_step_of_training_waits(kind, compiled):
    generator = build(kind).to(DEVICE).train()
    if compiled:
        generator.accelerate(compile=True)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-4, fused=True)
    wrapper = Bf16OptimWrapper(optimizer, clip_grad=dict(max_norm=1.0))
    average = ForeachEMA(generator)
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 0)
    batch = dict(
        inputs=torch.randn(4, *generator.data_shape).pin_memory(),
        **{key: value.pin_memory() for key, value in request(generator, 4).items()},
    )

    def step(iteration):
        hub.update_info('iter', iteration)
        logged = generator.train_step(batch, wrapper)
        average.update_parameters(generator)
        return logged['loss']

    losses = [step(iteration) for iteration in range(20)]  # compiles every stage
    with no_waiting():
        losses += [step(iteration) for iteration in range(20)]
    assert torch.isfinite(torch.stack(losses)).all()
