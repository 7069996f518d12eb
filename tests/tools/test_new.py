"""mmsparsedit new: folders of real images and videos become configs that train."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mmsparsedit.apis.launch import ConfigError, load_config
from mmsparsedit.apis.own_config import find_like, plan

from runs import run_tool


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """Twelve handwritten digits in three classes."""
    root = tmp_path_factory.mktemp('own') / 'my digits'
    data = load_digits()
    for i in np.flatnonzero(data.target < 3)[:12]:
        folder = root / ('zero', 'one', 'two')[data.target[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[i] * 15.9).astype(np.uint8)).save(folder / f'{i}.png')
    return root


def write_image(path, side=256):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient('L').resize((side, side + 9)).save(path)


def write_video(path, frames=60, side=256):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 8, (side, side))
    for i in range(frames):
        file.write(np.full((side, side, 3), 4 * i, np.uint8))
    file.release()


def read(project, folder):
    path = folder / 'config.py'
    path.write_text(project.render())
    return load_config(str(path))


@pytest.mark.slow(20)
def test_new_train_test(digits, tmp_path):
    config = tmp_path / 'own.py'
    done = run_tool(
        'tools/new.py', digits, '--like', 'sparsedit/digits', '--out', config, '--data', tmp_path,
        '--random-inception', 0, '--num-samples', 4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '12 images in 3 classes: one' in done.stdout and f'train {config}' in done.stdout
    small = ['model.network.hidden_size=16', 'model.network.num_heads=2']
    done = run_tool(
        'tools/train.py', config, '--work-dir', tmp_path / 'w', '--cfg-options', *small,
        'train_cfg.max_iters=3', 'default_hooks.sample_grid=None', 'param_scheduler=None',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # without the distances, whose square roots of 2048 x 2048 take ten seconds
    metric = {**load_config(str(config)).test_evaluator.to_dict(), 'metrics': ['is', 'precision']}
    (tmp_path / 'quick.py').write_text(f"_base_ = 'own.py'\ntest_evaluator = [{metric!r}]\n")
    done = run_tool(
        'tools/test.py', tmp_path / 'quick.py', tmp_path / 'w/iter_3.pth',
        '--work-dir', tmp_path / 'w', '--out', tmp_path / 'm.json', '--cfg-options', *small,
        'model.sampler.num_steps=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / 'm.json').read_text())['metrics']
    assert 1 <= metrics['adm_random_inception/is'] <= 4
    assert 0 <= metrics['adm_random_inception/precision'] <= 1
    again = run_tool('tools/new.py', digits, '--like', 'sparsedit/digits', '--out', config)
    assert again.returncode == 2 and 'exists: name another --out' in again.stderr


def test_a_short_name_is_a_dit_where_several_base_models_have_it():
    assert find_like('xl_256') == 'sparsedit/xl_256.py'
    assert find_like('sparsesit/xl_256.py') == 'sparsesit/xl_256.py'
    assert find_like('moving_digits') == 'sparselatte/moving_digits.py'


def test_a_missing_reference_says_what_makes_it(tmp_path):
    from mmsparsedit.evaluation import ADMMetrics

    with pytest.raises(FileNotFoundError, match='of your data by .* .mmsparsedit reference'):
        ADMMetrics(tmp_path / 'none.npz')


def test_missing_weights_are_a_short_note(digits, tmp_path, monkeypatch):
    done = run_tool(
        'tools/new.py', digits, '--like', 'sparsedit/digits', '--out', tmp_path / 'own.py',
        '--data', tmp_path, env=dict(TORCH_HOME=str(tmp_path), https_proxy='http://127.0.0.1:9'),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (note,) = (line for line in done.stdout.splitlines() if line.startswith('note'))
    assert 'no reference yet, because weights-inception' in note and len(note) < 320


def test_images_of_a_latent_model(tmp_path):
    for name in ('a/1.png', 'a/2.png', 'b/3.jpg'):
        write_image(tmp_path / 'mine' / name, 300)
    project = plan(tmp_path / 'mine', 'sparsedit/xl_256', data='data')
    config = read(project, tmp_path)
    assert config.model.network.num_classes == 2 and config.model.network.num_sdtm == 4
    assert config.train_dataloader.dataset.to_dict() == dict(
        type='LatentDataset', data_root='data/mine_256_latents', latent_shape=(4, 32, 32),
        num_classes=2, scale_factor=0.18215,
    )  # fmt: skip
    assert config.extract.dataset.data_root == str(tmp_path / 'mine')
    assert config.load_options.reinitialise == ['y_embedder']
    assert config.test_dataloader.dataset.num_classes == 2
    assert config.test_evaluator.to_dict() == dict(
        type='ADMMetrics', reference='data/mine_256_reference.npz', num_samples=5000
    )
    hooks = config.default_hooks
    assert hooks.ema.ema_type == 'ForeachEMA' and hooks.ema.gamma == 10
    assert hooks.sample_grid.labels == [0, 1]
    larger = read(plan(tmp_path / 'mine', 'sparsedit/xl_256', size=288), tmp_path)
    assert larger.model.network.input_size == 36 and larger.model.prune.token_grid == (18, 18)


def test_captions_of_a_latent_model(tmp_path):
    for number in range(6):
        write_image(tmp_path / 'mine' / f'{number}.png')
        (tmp_path / 'mine' / f'{number}.txt').write_text(f'gradient {number % 3}')
    project = plan(tmp_path / 'mine')
    config = read(project, tmp_path)
    assert project.like == 'sparsepixart/sam_256.py'
    assert config.train_dataloader.dataset.type == 'CaptionedLatents'
    assert config.extract.dataset.type == 'CaptionedImages'
    assert config.test_dataloader.dataset.prompts == 'data/mine_256_prompts.txt'
    # each prompt once in the pictures
    assert config.default_hooks.sample_grid.prompts == [f'gradient {i}' for i in range(3)]
    assert config.default_hooks.sample_grid.num_samples == 3


def test_videos(tmp_path):
    for name in ('run/1.avi', 'jump/2.avi'):
        write_video(tmp_path / 'mine' / name)
    write_video(tmp_path / 'mine/run/3.avi', frames=20)
    project = plan(tmp_path / 'mine')
    config = read(project, tmp_path)
    assert project.like == 'sparselatte/ucf101.py' and config.model.network.num_classes == 2
    dataset = config.train_dataloader.dataset
    assert dataset.frame_interval == 3 and dataset.min_frames == 46
    assert config.extract.dataset.min_frames == 46
    assert project.notes[0] == '1 videos of fewer than 46 frames are left out'
    assert config.test_evaluator.type == 'FVD'


@pytest.mark.parametrize(
    ('files', 'like', 'message'),
    [
        ([], None, 'holds neither images'),
        (['a/1.png', '2.png'], None, 'got 1 images outside any class folder, such as 2.png'),
        (['a/1.png'], 'sparselatte/nothing', 'has no config'),
        (['a/1.png'], 'sparsepixart/sam_256', 'is trained on captions'),
        (['a/1.avi'], 'sparsedit/xl_256', '1 videos in 1 classes: a 1; sparsedit/xl_256.py is'),
        (['a/1.avi'], 'sparselatte/ffs', 'no classes'),
        (['a/1.png'], 'sparsedit/xl_512', '1 of 1 are smaller than 512 pixels'),
        (['1.png', '1.txt'], 'captioned_digits', 'a text encoder: use --like sparsepixart'),
    ],
)
def test_refusals(files, like, message, tmp_path):
    (tmp_path / 'mine').mkdir()
    for name in files:
        write = dict(png=write_image, avi=write_video, txt=lambda path: path.write_text('a text'))
        write[Path(name).suffix[1:]](tmp_path / 'mine' / name)
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path / 'mine', like)


def test_videos_that_are_too_short_and_empty_classes(tmp_path):
    write_video(tmp_path / 'mine/a.avi', frames=8)
    with pytest.raises(ConfigError, match='shorter than the 16 frames of sparselatte/ffs.py'):
        plan(tmp_path / 'mine')
    write_image(tmp_path / 'images/a/1.png')
    (tmp_path / 'images/empty').mkdir()
    with pytest.raises(ConfigError, match="the folder 'empty' holds no image"):
        plan(tmp_path / 'images')
