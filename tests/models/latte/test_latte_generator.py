"""Training and sampling of video generators: joint images, unconditional models, the metric."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsparsedit.apis import init_model
from mmsparsedit.registry import MODELS

ROOT = Path(__file__).parents[3] / 'configs' / 'sparselatte'
CONFIGS = ('ffs', 'sky', 'ucf101', 'taichi')


def generator(kind: str = 'DiffusionGenerator', num_classes: int | None = 5):
    network = dict(
        type='SparseLatte',
        input_size=8,
        num_frames=4,
        hidden_size=24,
        num_heads=3,
        num_classes=num_classes,
        num_bottom=2,
        num_sdtm=1,
        num_top=2,
    )
    prune = dict(
        type='TimestepPruneScheduler', r_min=0.5, r_max=0.9, token_grid=(4, 4, 4), num_frames=2
    )
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type=kind,
            network=network,
            diffusion=dict(type='GaussianDiffusion', channel_dim=2),
            sampler=dict(type='DDIMSampler', num_steps=2),
            prune=prune,
            cfg_scale=1.0 if num_classes is None else 2.0,
        )
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.02)
    return model


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('num_classes', [5, None])
def test_samples_are_uint8_videos_that_depend_on_their_seed_alone(num_classes):
    model = generator(num_classes=num_classes).eval()
    request = {} if num_classes is None else dict(label=torch.tensor([1, 3]))
    both = model.predict(seed=torch.tensor([4, 9]), **request)
    one = {key: value[1:] for key, value in request.items()}
    alone = model.predict(seed=torch.tensor([9]), **one)[0]
    assert both[1].video.shape == (4, 4, 8, 8) and both[1].video.dtype == torch.uint8
    assert (both[1].video.int() - alone.video.int()).abs().max() <= 1
    assert not torch.equal(both[0].video, both[1].video)


@pytest.mark.parametrize('num_classes', [5, None])
def test_joint_training_reads_images_behind_the_clip(num_classes):
    model = generator('JointVideoGenerator', num_classes).train()
    moments = torch.cat([noise(3, 6, 4, 8, 8), torch.full((3, 6, 4, 8, 8), -60.0)], dim=2)
    labels = dict(label=torch.tensor([0, 1, 2]), image_label=torch.tensor([[1, 2]] * 3))
    labels = labels if num_classes is not None else {}
    seen = {}

    def note(module, args, kwargs) -> None:
        seen.update(kwargs, x=args[0], t=args[1])

    model.network.register_forward_pre_hook(note, with_kwargs=True)
    losses = model(mode='loss', inputs=moments, **labels)
    losses['loss'].backward()
    assert torch.isfinite(losses['loss']) and seen['use_image_num'] == 2
    assert seen['x'].shape == (3, 6, 4, 8, 8)
    assert ('y_image' in seen) == (num_classes is not None)
    # clip and images are noised alike, from the means (their variance is e^-60)
    x_start = moments[:, :, :4]
    sample = model(mode='loss', inputs=x_start, **labels)
    assert torch.isfinite(sample['loss'])
    with pytest.raises(ValueError, match='expected images behind the 4 frames of the clip'):
        model(mode='loss', inputs=x_start[:, :4], **labels)


def test_labels_of_images_are_dropped_independently_at_the_given_rate():
    model = generator('JointVideoGenerator').train()
    seen = {}
    model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    labels = torch.zeros(400, dtype=torch.long)
    model.network.forward = lambda x, t, **kwargs: torch.cat([x, x], dim=2)
    inputs = torch.zeros(400, 6, 4, 8, 8)
    model(mode='loss', inputs=inputs, label=labels, image_label=labels[:, None].repeat(1, 2))
    dropped = torch.cat([seen['y'][:, None], seen['y_image']], dim=1) == 5
    assert dropped.float().mean(0).tolist() == pytest.approx([0.1] * 3, abs=0.05)
    assert len({tuple(column) for column in dropped.T.tolist()}) == 3


@pytest.mark.parametrize('name', [*CONFIGS, *(f'latte_{name}' for name in CONFIGS), 'ucf101_joint'])
def test_configs_build_on_meta(name):
    config = Config.fromfile(ROOT / f'{name}.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    network = model.network
    assert network.depth == 28 and network.token_grid == (16, 16, 16)
    assert (network.num_classes, model.guidance.scale) == (
        (101, 7.0) if 'ucf101' in name else (None, 1.0)
    )
    grids = [stage.grid for stage in model.prune.stages] if model.prune else None
    sparse = [(8, 10, 10), (8, 9, 9), (8, 8, 8), (8, 6, 6)]
    assert grids == (None if name.startswith('latte_') else sparse)
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.1)
    # Latte's; where they lie beyond the fine-tuning, the same share of it
    latte = dict(ffs=20_000, sky=20_000, taichi=500_000).get(name.split('_')[-1], 100_000)
    iterations = config.train_cfg.max_iters
    share = iterations / 1_000_000 if latte > iterations else 1
    assert config.custom_hooks[0].start_iter == latte * share < iterations


def test_moving_digits_config_trains_an_iteration_of_each():
    for name in ('moving_digits', 'latte_moving_digits'):
        model = init_model(ROOT / f'{name}.py').train()
        loss = model(mode='loss', inputs=noise(2, 4, 1, 16, 16), label=torch.tensor([0, 9]))['loss']
        loss.backward()
        assert torch.isfinite(loss)
        gradients = [p.grad is not None for p in model.network.parameters()]
        assert all(gradients)


def test_metric_of_real_videos_and_of_wrong_ones():
    from mmsparsedit.datasets.video_digits import moving_digits
    from mmsparsedit.evaluation.moving_digits import MovingDigitsMetric

    videos, labels, _ = moving_digits(300, seed=5, num_frames=8)

    def measured(videos, labels) -> dict:
        metric = MovingDigitsMetric()
        metric.process(
            None,
            [
                dict(index=i, video=torch.from_numpy(video)[:, None], label=int(label))
                for i, (video, label) in enumerate(zip(videos, labels, strict=True))
            ],
        )
        return metric.compute_metrics(metric.results)

    real = measured(videos, labels)
    assert real['recognised_clips'] >= 97 and real['lawful_motion'] == 100
    assert real['speed'] == pytest.approx(real['speed_real'], abs=0.05)
    wrong = measured(videos, (labels + 1) % 10)
    assert wrong['recognised_clips'] <= 2 and wrong['frechet'] == real['frechet']
    still = measured(np.repeat(videos[:, :1], 8, axis=1), labels)
    assert still['lawful_motion'] == 0 and still['speed'] == 0
    # a still video lacks the variance of the steps: 14 coordinates of mean square 3
    assert still['frechet'] - real['frechet'] > 5
    shuffled = measured(videos[:, np.random.default_rng(0).permutation(8)], labels)
    assert shuffled['recognised_clips'] == real['recognised_clips']
    # of nine places many happen to be one step apart
    assert 60 < shuffled['lawful_motion'] < 80


def test_costs_are_counted_under_activation_checkpointing():
    from mmsparsedit.engine.recompute import recompute_layers
    from mmsparsedit.nn.flops import count_macs

    model = generator()
    plain = count_macs(model.network, (2, 2, 2)).total
    recompute_layers(model.network)
    assert count_macs(model.network, (2, 2, 2)).total == plain


def test_gradients_are_the_same_under_activation_checkpointing():
    from mmsparsedit.engine.recompute import recompute_layers

    gradients = []
    for recompute in (False, True):
        model = generator().train()
        if recompute:
            recompute_layers(model.network)
        inputs, label = noise(2, 4, 4, 8, 8), torch.tensor([1, 2])
        model(mode='loss', inputs=inputs, label=label)['loss'].backward()
        gradients.append([p.grad for p in model.network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)
