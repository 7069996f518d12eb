"""Habits of the OpenMMLab stack, as docs/habits.md lists them, and stumbles of new users."""

import builtins
import functools
import json
import logging

import numpy as np
import pytest
import torch
from mmengine import hub
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mmsparsedit.apis import init_model
from mmsparsedit.apis.launch import ConfigError, check_classes, load_config
from mmsparsedit.datasets import video_reader
from mmsparsedit.datasets.transforms.video import SampleClip
from mmsparsedit.engine import DiffusionRunner
from mmsparsedit.evaluation.images import FolderImages
from mmsparsedit.evaluation.inception_weights import build_inception
from mmsparsedit.evaluation.videos import find_clip_sources
from mmsparsedit.registry import OPTIM_WRAPPERS
from mmsparsedit.visualization import save_grid

from runs import DENSE, ROOT, SPARSE, TINY, run_tool, train

SMALL = ['model.network.hidden_size=16', 'model.network.num_heads=2']


def tiny_config(work_dir, iterations=2):
    config = load_config(str(ROOT / SPARSE))
    config.model.network.update(hidden_size=16, num_heads=2)
    config.train_dataloader.batch_size = 16
    config.train_cfg.max_iters = iterations
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.param_scheduler = None
    config.work_dir, config.experiment_name = str(work_dir), work_dir.name
    return config


def test_the_stock_runner_trains(tmp_path):
    runner = Runner.from_cfg(tiny_config(tmp_path / 'stock'))
    assert type(runner) is Runner
    runner.train()
    ours = train(tmp_path / 'own', 2)
    stock = torch.load(tmp_path / 'stock/iter_2.pth', weights_only=False)['state_dict']
    own = torch.load(tmp_path / 'own/iter_2.pth', weights_only=True)['state_dict']
    assert type(ours) is not Runner
    for key, value in own.items():
        assert torch.equal(stock[key], value), key


def test_a_resume_finds_the_same_data(checkpoint, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tmp_path, 5, resume=checkpoint)
    assert 'metainfo' not in caplog.text


@pytest.mark.slow(8)
def test_options_of_train(tmp_path):
    options = [o for o in TINY if not o.startswith('val_')]
    command = ('tools/train.py', SPARSE, '--work-dir', tmp_path, '--no-validate')
    done = run_tool(
        *command, '--auto-scale-lr', '--cfg-options', *options, 'train_cfg.max_iters=12',
        'train_cfg.val_interval=1', 'auto_scale_lr.base_batch_size=32',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'recognised' not in done.stdout
    done = run_tool('tools/analysis_tools/analyze_logs.py', 'cal_train_time', tmp_path)
    assert 's an iteration' in done.stdout, done.stderr
    log = next(p for p in tmp_path.glob('*/vis_data/*.json') if p.stem[:8].isdigit())
    entry = json.loads(log.read_text().splitlines()[0])
    lr = load_config(str(ROOT / SPARSE)).optim_wrapper.optimizer.lr
    assert entry['lr'] == pytest.approx(lr * 16 / 32)
    curves = tmp_path / 'c.png'
    done = run_tool('tools/analysis_tools/analyze_logs.py', 'plot_curve', tmp_path, '--out', curves)
    assert Image.open(curves).width > 500, done.stderr
    done = run_tool('tools/train.py', SPARSE, '--auto-scale-lr')
    assert done.returncode == 2 and 'set auto_scale_lr.base_batch_size' in done.stderr


def test_publish_model(checkpoint, tmp_path):
    done = run_tool('tools/model_converters/publish_model.py', checkpoint, tmp_path / 'digits.pth')
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob('digits-*.pth')
    assert path.stat().st_size < checkpoint.stat().st_size / 3
    config = tiny_config(tmp_path)
    published, own = (init_model(config, each).network.state_dict() for each in (path, checkpoint))
    assert all(torch.equal(published[key], value) for key, value in own.items())


def test_browse_dataset(tmp_path):
    done = run_tool('tools/analysis_tools/browse_dataset.py', SPARSE, '--output-dir', tmp_path,
                    '--show-number', 4)  # fmt: skip
    assert done.returncode == 0, done.stderr
    from sklearn.datasets import load_digits

    # the digits as they are, from 0 ... 16 to 8 bits
    shown = np.asarray(Image.open(tmp_path / '000000.png')).astype(float)
    assert np.abs(shown - load_digits().images[0] * 255 / 16).max() <= 0.5
    assert len(list(tmp_path.glob('*.png'))) == 5


def test_epochs(tmp_path):
    config = tiny_config(tmp_path)
    config.train_dataloader.update(batch_size=512, sampler=dict(type='DefaultSampler'))
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    runner = DiffusionRunner.from_cfg(config)
    runner.train()
    assert runner.iter == 2 * 4 and runner.epoch == 2


def test_what_docs_say_does_not_work():
    pytest.importorskip('pkg_resources', reason='MMEngine finds packages by it')
    with pytest.raises(AssertionError, match='Weights'):
        hub.get_config('mmsparsedit::sparsedit/digits.py', pretrained=True)
    config = tiny_config(ROOT)
    config.test_evaluator = dict(type='ADMMetrics', metrics=['is'], reference='nowhere.npz')
    with DefaultScope.overwrite_default_scope('mmsparsedit'), pytest.raises(KeyError):
        Runner.build_evaluator(None, config.test_evaluator)


def test_the_warm_up_of_the_average_is_that_of_the_stack():
    from mmengine.model import MomentumAnnealingEMA

    from mmsparsedit.engine import ForeachEMA

    net = torch.nn.Linear(3, 2)
    averages = [kind(net, momentum=0.4, gamma=5) for kind in (MomentumAnnealingEMA, ForeachEMA)]
    for step in range(12):
        torch.nn.init.constant_(net.weight, step**2)
        for average in averages:
            average.update_parameters(net)
    theirs, ours = (average.module.weight for average in averages)
    torch.testing.assert_close(ours, theirs)
    assert 81 < float(ours[0, 0]) < 121


# each row of docs/habits.md, by a part of its first cell, and the test that tries it
TRIED = {
    'tools/train.py': ('tools/test_habits', 'test_options_of_train'),
    '--auto-scale-lr': ('tools/test_habits', 'test_options_of_train'),
    '--no-validate': ('tools/test_habits', 'test_options_of_train'),
    'tools/dist_train.sh': ('engine/test_slurm', 'test_srun_trains_as_torchrun_does'),
    'tools/test.py': ('tools/test_test', 'test_a_killed_test_goes_on_and_gives_the_same_result'),
    '`Runner.from_cfg': ('tools/test_habits', 'test_the_stock_runner_trains'),
    'RUNNERS.build': ('tools/test_habits', 'test_epochs'),
    'read_base': ('engine/test_lazy_config', 'test_it_trains_as_the_text_config_does_and_resumes'),
    '_base_ =': ('test_package', 'test_a_project_elsewhere_inherits'),
    'mmengine.hub': ('test_package', 'test_hub_of_mmengine'),
    'pretrained=True': ('tools/test_habits', 'test_what_docs_say_does_not_work'),
    'metafile.yml': ('apis/test_metafiles', 'test_the_index_has_every_folder_and_names_are_unique'),
    'BaseInferencer': ('apis/test_inferencer', 'test_all_labels_with_all_seeds'),
    '`OptimWrapper`': ('tools/test_habits', 'test_amp_by_its_name'),
    'EMAHook': ('tools/test_habits', 'test_hooks_of_the_stack'),
    'Visualizer': ('visualization/test_live', 'test_other_backends_get_the_picture_once'),
    "mmcv's transforms": ('datasets/test_image_transforms', 'test_flip_of_mmcv_in_the_pipeline'),
    'custom_imports': (
        'projects/test_example_project', 'test_example_project_trains_with_its_own_modules',
    ),
    'browse_dataset': ('tools/test_habits', 'test_browse_dataset'),
    'analyze_logs': ('tools/test_habits', 'test_options_of_train'),
    'get_flops': ('tools/test_get_flops', 'test_get_flops_prints_stages_means_and_the_paper'),
    'print_config': ('tools/test_habits', 'test_print_config'),
    'publish_model': ('tools/test_habits', 'test_publish_model'),
    'a metric as': ('tools/test_habits', 'test_what_docs_say_does_not_work'),
    'epochs': ('tools/test_habits', 'test_epochs'),
}  # fmt: skip


def test_every_row_of_the_habits_is_tried_by_a_test():
    rows = (ROOT / 'docs/habits.md').read_text(encoding='utf-8').splitlines()
    cells = [row.split('|')[1].strip() for row in rows if row.startswith('|')][2:]
    found = [[key for key in TRIED if key in cell] for cell in cells]
    assert [keys for keys in found if len(keys) != 1] == []
    assert {keys[0] for keys in found} == set(TRIED)
    for file, name in TRIED.values():
        assert f'def {name}' in (ROOT / f'tests/{file}.py').read_text(encoding='utf-8'), name


def test_hooks_of_the_stack(tmp_path):
    """MMEngine's own hooks by their names: average, checkpoints, a log of every iteration."""
    config = tiny_config(tmp_path)
    config.default_hooks.checkpoint = dict(
        type='mmengine.CheckpointHook', interval=1, by_epoch=False
    )
    config.default_hooks.logger = dict(type='LoggerHook', interval=1)
    config.default_hooks.ema = None
    config.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    runner = DiffusionRunner.from_cfg(config)
    runner.train()
    assert {p.name for p in tmp_path.glob('iter_*.pth')} == {'iter_1.pth', 'iter_2.pth'}
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert state['ema_state_dict']
    (log,) = tmp_path.glob('*/vis_data/2*.json')
    assert [json.loads(line)['step'] for line in log.read_text().splitlines()] == [1, 2]


def test_print_config():
    done = run_tool('tools/misc/print_config.py', SPARSE, '--cfg-options', 'model.cfg_scale=2.5')
    assert done.returncode == 0, done.stderr
    assert 'cfg_scale=2.5' in done.stdout and "type='SeekableTrainLoop'" in done.stdout


def test_amp_by_its_name():
    with OPTIM_WRAPPERS.switch_scope_and_registry('mmsparsedit') as registry:
        assert registry.get('AmpOptimWrapper') is AmpOptimWrapper


# -- stumbles -----------------------------------------------------------------------------------


def test_folders_of_samples_are_measured_without_their_grid(tmp_path):
    for i in range(3):
        Image.new('RGB', (8, 8), (i, i, i)).save(tmp_path / f'{i:06d}.png')
    save_grid(tmp_path / 'grid.png', Image.new('RGB', (99, 50)))
    images = FolderImages(tmp_path)
    assert len(images) == 3 and images.size == (8, 8)
    Image.new('RGB', (8, 8)).save(tmp_path / 'grid.png')  # a user's own of that name
    assert len(FolderImages(tmp_path)) == 4
    for name in ('000000.mp4', '000000.gif', '000001.gif'):
        (tmp_path / name).touch()
    assert [p.name for p in find_clip_sources(tmp_path)] == ['000000.mp4', '000001.gif']


def test_a_reference_is_cropped_as_training_crops(tmp_path):
    from mmsparsedit.datasets import ImageNet

    (tmp_path / 'a').mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (('1.png', (40, 61, 3)), ('2.png', (97, 35, 3)), ('3.png', (33, 33, 4))):
        Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8)).save(tmp_path / 'a' / name)
    crop = [dict(type='LoadImage'), dict(type='CenterCropADM', size=16), dict(type='PackImage')]
    dataset = ImageNet(str(tmp_path), pipeline=crop)
    (batch,) = FolderImages(tmp_path, crop=16).batches(8)
    for i, image in enumerate(batch):
        assert torch.equal(image.float() / 127.5 - 1, dataset[i]['inputs'])


def test_classes_that_the_network_does_not_have():
    config = load_config(str(ROOT / 'configs/sparsedit/xl_256.py'))
    check_classes(config)
    config.model.network.num_classes = 3
    config.train_dataloader.dataset.num_classes = 3
    with pytest.raises(ConfigError, match='test_dataloader has 1000 classes, the network 3: set'):
        check_classes(config)


def test_a_dense_checkpoint_is_not_sampled_sparsely(tmp_path):
    train(tmp_path / 'dense', 2, config=DENSE)
    config = tiny_config(tmp_path)
    with pytest.raises(ValueError, match='is a dense checkpoint, the config a sparse network'):
        init_model(config, tmp_path / 'dense/iter_2.pth')


def test_the_cause_of_short_videos_is_named():
    assert SampleClip(16, 3, 'stride', 49).advice == 'lower min_frames, 49: a clip spans 46'
    assert SampleClip(16, 3, 'stride').advice == 'lower num_frames or frame_interval'


def without(monkeypatch, *libraries):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split('.')[0] in libraries:
            raise ImportError(f'no {name}')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', refuse)


def test_a_missing_extra_is_named(monkeypatch):
    without(monkeypatch, 'torch_fidelity')
    with pytest.raises(ImportError, match=r'pip install "mmsparsedit\[eval\]"'):
        build_inception({})


def test_videos_without_decord(tmp_path, monkeypatch):
    import cv2

    path = str(tmp_path / 'a.avi')
    file = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 8, (32, 32))
    for i in range(5):
        file.write(np.full((32, 32, 3), 40 * i, np.uint8))
    file.release()
    fresh = functools.cache(video_reader.has_decord.__wrapped__)
    monkeypatch.setattr(video_reader, 'has_decord', fresh)
    by_decord = video_reader.open_video(path).read([1, 3])
    fresh.cache_clear()
    without(monkeypatch, 'decord')
    reader = video_reader.open_video(path)
    assert reader.backend == 'av' and len(reader) == 5
    assert np.abs(reader.read([1, 3]).astype(int) - by_decord).max() <= 2
    without(monkeypatch, 'decord', 'av')
    with pytest.raises(ImportError, match='neither can be imported'):
        video_reader.open_video(path)


def test_a_diffusers_folder_is_tested(tmp_path):
    train(tmp_path / 'dense', 2, config=DENSE)
    folder, options = tmp_path / 'folder', ['--cfg-options', *SMALL]
    folder.mkdir()
    weights = folder / 'diffusion_pytorch_model.safetensors'
    done = run_tool('tools/model_converters/convert_checkpoint.py', tmp_path / 'dense/iter_2.pth',
                    weights, '--config', DENSE, *options)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_tool(
        'tools/test.py', DENSE, folder, '--work-dir', tmp_path / 'w', *options,
        'model.sampler.num_steps=2', 'test_dataloader.dataset.num_samples=4',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / 'w/metrics.json').read_text())['recipe']
    assert len(recipe['checkpoint']['sha256']) == 64
