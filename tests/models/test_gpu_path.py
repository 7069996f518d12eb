"""What would happen on a GPU, seen without one: tensors that have a CUDA device but no content.

A mixture of devices is an error there as on a GPU, and so is a number that the host asks for: it
would have to wait for the device.
"""

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmsparsedit.engine import Bf16OptimWrapper, ForeachEMA
from mmsparsedit.models import generators

from accelerated import NETWORKS, build, request


@pytest.fixture
def cuda(monkeypatch):
    """Imitated CUDA for autocast, and random numbers that need no generator of a device."""
    monkeypatch.setattr(torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *args, **kwargs: True)
    monkeypatch.setattr(
        generators,
        'batch_randomness',
        lambda seed, iteration, device: lambda draw, shape: draw(shape, device=device),
    )
    # looks at the labels once, before the first step
    monkeypatch.setattr(generators.DiffusionGenerator, '_check_request', lambda self, **_: None)
    FakeTensorMode.cache_clear()  # a look into it has crashed torch 2.14 after other tests
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device('cuda', 0)


def moved(generator, device):
    for module in generator.modules():
        for name, p in module._parameters.items():
            if p is not None:
                empty = torch.empty(p.shape, dtype=p.dtype, device=device)
                module._parameters[name] = nn.Parameter(empty, p.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    generator.data_preprocessor.to(device)
    return generator


def asked(generator, batch, device):
    return {k: torch.empty(v.shape, dtype=v.dtype, device=device)
            for k, v in request(generator, batch).items()}  # fmt: skip


def give_gradients(generator):
    for p in generator.parameters():
        if p.requires_grad:
            p.grad = torch.empty_like(p)


@pytest.mark.slow(3)
@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('options', [{}, dict(dtype='bfloat16', cache_interval=2)], ids=str)
def test_no_step_of_sampling_waits(kind, options, cuda):
    generator = moved(build(kind, cfg_interval=(200, 700), acceleration=options), cuda)
    model = generator.denoiser(2, **asked(generator, 2, cuda))
    x = torch.empty(2, *generator.data_shape, device=cuda)
    for t in generator.sampler.timesteps(generator.diffusion):
        out = model(x, t)
        assert out.device == cuda and out.dtype == torch.float32


@pytest.mark.parametrize('kind', NETWORKS)
def test_no_step_of_training_waits(kind, cuda, monkeypatch):
    generator = moved(build(kind), cuda).train()
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-4, fused=True)
    wrapper = Bf16OptimWrapper(optimizer, clip_grad=dict(max_norm=1.0))
    # autograd's own threads ask for a real GPU
    monkeypatch.setattr(wrapper, 'backward', lambda loss: give_gradients(generator))
    average = ForeachEMA(generator)
    average._calls = 0  # read from the device once, before the first step
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 0)
    for iteration in range(4):
        hub.update_info('iter', iteration)
        batch = dict(
            inputs=torch.empty(4, *generator.data_shape, device=cuda), **asked(generator, 4, cuda)
        )
        logged = generator.train_step(batch, wrapper)
        average.update_parameters(generator)
        assert {value.device for value in (*logged.values(), wrapper.take_grad_norm())} == {cuda}
