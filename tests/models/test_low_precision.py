"""bf16 and fp8: how far they deviate, what they leave alone, whose weights they use."""

import pytest
import torch

from mmsparsedit.models import acceleration
from mmsparsedit.models.low_precision import SamplingCopy, fp8_layers
from mmsparsedit.nn import TokenRecovery

from accelerated import NETWORKS, at_each_stage, build, error, sampled


@pytest.mark.parametrize('kind', NETWORKS)
def test_bf16_deviates_by_its_rounding(kind):
    generator = build(kind)
    expected = at_each_stage(generator)
    generator.accelerate(dtype='bfloat16')
    for output, reference in zip(at_each_stage(generator), expected, strict=True):
        assert output.dtype == torch.float32
        assert 1e-5 < error(output, reference) < 2e-2  # bf16 rounds to 2 ** -9 = 2e-3


def test_bf16_keeps_timestep_and_last_layer_in_float32():
    network = build().network
    taken = SamplingCopy(network, torch.bfloat16)
    taken.take_weights(network)
    t, c, x = torch.tensor([0.0, 999.0]), torch.randn(2, 32), torch.randn(2, 64, 32)
    with torch.autocast('cpu', torch.bfloat16):
        embedded, last = taken.network.t_embedder(t), taken.network.final_layer(x, c)
    assert torch.equal(embedded, network.t_embedder(t))
    assert torch.equal(last, network.final_layer(x, c))
    assert taken.network.top[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert network.top[0].mlp.fc1.weight.dtype == torch.float32


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('stream', ['float32', 'bfloat16'])
def test_tokens_between_layers_have_the_dtype_of_the_stream(kind, stream):
    """Without positions added again, which would make float32 of whatever a merge gives."""
    generator = build(kind, network={**NETWORKS[kind], 'reinject_pos_embed': False})
    expected = at_each_stage(generator)
    generator.accelerate(dtype='bfloat16', stream=stream)
    at_each_stage(generator)
    network, entered = generator.acceleration._copy.network, []
    for _, layer in network.named_layers():
        layer.register_forward_pre_hook(lambda m, args: entered.append(args[0].dtype))
    deviations = [
        error(out, exact) for out, exact in zip(at_each_stage(generator), expected, strict=True)
    ]
    assert set(entered) == {getattr(torch, stream)}
    assert 1e-5 < min(deviations) and max(deviations) < (2e-2 if stream == 'float32' else 5e-2)


def test_a_merge_under_autocast_passes_float32_tokens_exactly():
    """W1 = 0, W2 = I: the dense tokens, to the bit; products alone are rounded."""
    recovery = TokenRecovery(8, dict(type='TransformerBlock', hidden_size=8, num_heads=2))
    x, sparse = torch.randn(2, 16, 8), torch.randn(2, 4, 8)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(recovery.merge(x, sparse, (2, 2), (4, 4)), x)
    torch.nn.init.normal_(recovery.merge_sparse.weight)
    torch.nn.init.normal_(recovery.merge_dense.weight)
    exact = recovery.merge(x, sparse, (2, 2), (4, 4))
    with torch.autocast('cpu', torch.bfloat16):
        rounded = recovery.merge(x, sparse, (2, 2), (4, 4))
    assert rounded.dtype == torch.float32 and 1e-4 < error(rounded, exact) < 1e-2


@pytest.mark.parametrize('kind', NETWORKS)
def test_training_in_bf16_is_autocast(kind):
    generator = build(kind).train()
    inputs = generator.network.example_inputs(2)
    x, t, *_ = inputs.values()
    condition = {key: value for key, value in inputs.items() if key not in ('x', 't')}
    grid = generator.prune.stages[0].grid
    with torch.autocast('cpu', torch.bfloat16):
        expected = generator.network(x, t, grid=grid, **condition)
    generator.accelerate(dtype='bfloat16')
    found = generator.acceleration.train(generator.network, x, t, grid, condition)
    assert torch.equal(found, expected) and found.requires_grad


@pytest.mark.parametrize('kind', NETWORKS)
def test_fp8_takes_the_large_linears_only(kind):
    names = set(fp8_layers(build(kind).network))
    assert {'middle.0.recovery.0.block.mlp.fc1', 'bottom.0.mlp.fc2'} <= names
    assert ('middle.0.sparse.0.attn.qkv' in names) == (kind != 'latte')  # it has none here
    assert 'middle.0.generation.0.attn.proj' in names
    assert ('middle.0.recovery.0.block.cross_attn.q_linear' in names) == (kind == 'pixart')
    for left in ('embedder', 'final_layer', 'adaLN', 't_block', 'merge_', 'attn.v', 'kv_linear'):
        assert not [name for name in names if left in name]
    assert not {'middle.0.generation.0.attn.qkv', 'middle.0.recovery.0.block.attn.qkv'} & names


def test_fp8_needs_its_gpu():
    generator = build(acceleration=dict(fp8=True, dtype='bfloat16'))
    with pytest.raises(ValueError, match='capability 8.9 or above .*the network is on cpu'):
        sampled(generator)


@pytest.fixture
def fp8_on_cpu(monkeypatch):
    """The numbers of float8 on the CPU: torchao's check of the hardware is passed by."""
    quant_api = pytest.importorskip('torchao.quantization.quant_api')
    monkeypatch.setattr(quant_api, '_check_hardware_support', lambda granularity: None)
    monkeypatch.setattr(acceleration, 'check_fp8', lambda device: None)


def test_fp8_compiles_whole(fp8_on_cpu):
    generator = build(acceleration=dict(fp8=True, dtype='bfloat16'))
    expected = at_each_stage(generator)
    generator.accelerate(fp8=True, dtype='bfloat16', compile=dict(backend='eager', fullgraph=True))
    for output, reference in zip(at_each_stage(generator), expected, strict=True):
        assert error(output, reference) < 5e-2  # a bf16 rounding may move a value of float8
    torch._dynamo.reset()


def test_fp8_follows_the_weights(fp8_on_cpu):
    generator = build()
    expected = at_each_stage(generator)
    generator.accelerate(fp8=True, dtype='bfloat16')
    first = at_each_stage(generator)
    bf16 = build(acceleration=dict(dtype='bfloat16'))
    for output, half, reference in zip(first, at_each_stage(bf16), expected, strict=True):
        assert error(half, reference) < error(output, reference) < 0.2
    weight = generator.acceleration._copy.network.top[0].mlp.fc1.weight
    with torch.no_grad():
        for p in generator.network.parameters():
            p.mul_(0.9)
    second = at_each_stage(generator)
    assert generator.acceleration._copy.network.top[0].mlp.fc1.weight is weight
    for output, reference in zip(second, at_each_stage(bf16), strict=True):
        assert not torch.equal(output, reference)
    bf16.network.load_state_dict(generator.network.state_dict())
    for output, reference in zip(second, at_each_stage(bf16), strict=True):
        assert error(output, reference) < 0.2
