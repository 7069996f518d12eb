"""Large batches and large networks in one process: accumulation, recomputation, bf16."""

import pytest
import torch

from mmsparsedit.apis.launch import ConfigError, load_config
from mmsparsedit.engine import Bf16OptimWrapper
from mmsparsedit.engine.recompute import recompute_layers
from mmsparsedit.models import generators
from mmsparsedit.registry import MODELS

from latent_runs import ACCUMULATE, ONE_STAGE, curve, write_config
from runs import ROOT, train


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('scale')
    write_config(root)
    return root


def halves(monkeypatch, iterations_per_batch):
    """Randomness of a batch of 16 for halves of 8 that come one after the other."""
    whole = generators.batch_randomness

    def of_half(seed, iteration, device):
        draw = whole(seed, iteration // iterations_per_batch, device)
        half = slice(8 * (iteration % 2), 8 * (iteration % 2) + 8)
        return lambda function, shape: draw(function, (16, *shape[1:]))[half]

    monkeypatch.setattr(generators, 'batch_randomness', of_half)


def test_accumulation_is_the_full_batch(folder, monkeypatch):
    """Randomness is a function of the iteration, which accumulation has more of: pinned here."""
    config = folder / 'config.py'
    train(folder / 'full', 4, 'train_dataloader.batch_size=16', *ONE_STAGE, config=config,
          tiny=False)  # fmt: skip
    halves(monkeypatch, 2)
    train(folder / 'accumulated', 8, ACCUMULATE, *ONE_STAGE, config=config, tiny=False)
    full = curve(folder / 'full')
    parts = curve(folder / 'accumulated')
    for step, loss in full.items():
        assert (parts[2 * step - 1] + parts[2 * step]) / 2 == pytest.approx(loss, rel=2e-5)
    full = torch.load(folder / 'full' / 'iter_4.pth', weights_only=True)
    parts = torch.load(folder / 'accumulated' / 'iter_8.pth', weights_only=True)
    for part in ('state_dict', 'ema_state_dict'):  # one update of the average per update
        for key in full[part]:
            if key != 'steps':
                torch.testing.assert_close(full[part][key], parts[part][key], rtol=0, atol=1e-4)


@pytest.mark.parametrize('accumulate,batch,expected', [(1, 16, 0.25), (4, 16, 1.0), (1, 64, 1.0)])
def test_learning_rate_follows_the_batch_of_an_update(
    folder, tmp_path, accumulate, batch, expected
):
    runner = train(
        tmp_path,
        1,
        f'optim_wrapper.accumulative_counts={accumulate}',
        f'train_dataloader.batch_size={batch}',
        'auto_scale_lr.enable=True',
        'auto_scale_lr.base_batch_size=64',
        config=folder / 'config.py',
        tiny=False,
    )
    lr = load_config(str(folder / 'config.py')).optim_wrapper.optimizer.lr
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(lr * expected)]


def build(folder, seed=0):
    config = load_config(str(folder / 'config.py'))
    torch.manual_seed(seed)
    generator = MODELS.build(config.model)
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return generator.train()


def gradients(generator):
    """Loss, gradients, and bytes that the backward pass was kept, of one batch."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = generator(
            inputs=torch.randn(16, 4, 8, 8), label=torch.arange(16) % 10, mode='loss'
        )
    losses['loss'].backward()
    weights = {p.untyped_storage().data_ptr() for p in generator.parameters()}
    memory = sum(size for place, size in kept.items() if place not in weights)
    return losses['loss'].item(), [p.grad for p in generator.parameters()], memory


def test_recomputation_keeps_a_fraction_and_changes_nothing(folder):
    loss, expected, memory = gradients(build(folder))
    generator = build(folder)
    recompute_layers(generator.network)
    again, got, less = gradients(generator)
    assert again == loss
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a, b)
    assert less < memory / 4
    recovery = generator.network.get_submodule('middle.0.recovery.0')
    assert not any('checkpoint' in name for name in recovery.state_dict())


def test_mmengines_key_of_recomputation_is_answered(folder, tmp_path):
    with pytest.raises(ValueError, match='recompute_layers=True'):
        train(tmp_path, 1, 'activation_checkpointing=network', config=folder / 'config.py',
              tiny=False)  # fmt: skip


def test_bf16_trains_float32_weights(folder, tmp_path):
    seen = set()
    forward = torch.nn.Linear.forward

    def recorded(self, x):
        out = forward(self, x)
        seen.add(out.dtype)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, 'forward', recorded)
        runner = train(tmp_path / 'bf16', 8, 'optim_wrapper.type=Bf16OptimWrapper',
                       config=folder / 'config.py', tiny=False)  # fmt: skip
    assert seen == {torch.bfloat16} and isinstance(runner.optim_wrapper, Bf16OptimWrapper)
    train(tmp_path / 'fp32', 8, config=folder / 'config.py', tiny=False)
    bf16, fp32 = curve(tmp_path / 'bf16'), curve(tmp_path / 'fp32')
    assert bf16 == pytest.approx(fp32, rel=0.02) and bf16 != fp32
    saved = torch.load(tmp_path / 'bf16' / 'iter_8.pth', weights_only=True)
    assert {v.dtype for v in saved['state_dict'].values()} == {torch.float32}


def test_amp_option_sets_bf16(train_tool):
    config = load_config(str(ROOT / 'configs/sparsedit/digits.py'))
    train_tool.enable_amp(config)
    assert config.optim_wrapper.type == 'Bf16OptimWrapper'
    config.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ConfigError, match='the config has ApexOptimWrapper'):
        train_tool.enable_amp(config)
