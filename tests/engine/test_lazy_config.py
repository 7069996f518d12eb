"""MMEngine's lazy configs, whose types are classes: the same run as the text config's."""

import torch
from mmengine.config import Config

from mmsparsedit.apis.launch import load_config
from mmsparsedit.engine import Bf16OptimWrapper, DiffusionRunner
from mmsparsedit.registry import MODEL_WRAPPERS, class_of

from runs import ROOT, SPARSE, train

LAZY = 'configs/sparsedit/digits_lazy.py'


def names(value):
    """A config whose types are plain names, without package or module."""
    if isinstance(value, dict):
        return {
            key: inner.split('.')[-1] if key in ('type', 'ema_type', 'runner_type') else inner
            for key, inner in ((k, names(v)) for k, v in value.items())
        }
    return [names(v) for v in value] if isinstance(value, list | tuple) else value


def test_it_says_what_the_text_config_says(tmp_path):
    """Read with its keys checked; imported names (``Visualizer``) are no misspelt keys."""
    lazy, text = load_config(str(ROOT / LAZY)), load_config(str(ROOT / SPARSE))
    assert lazy.runner_type is DiffusionRunner
    lazy.work_dir = text.work_dir
    assert names(lazy.to_dict()) == names(text.to_dict())
    lazy.dump(tmp_path / 'dumped.py')
    dumped = Config.fromfile(tmp_path / 'dumped.py')
    assert dumped.runner_type == 'mmsparsedit.engine.DiffusionRunner'
    assert names(dumped.to_dict()) == names(text.to_dict())


def test_it_trains_as_the_text_config_does_and_resumes(tmp_path):
    options = ('default_hooks.checkpoint.interval=1',)
    train(tmp_path / 'lazy', 2, *options, config=LAZY)
    train(tmp_path / 'text', 2, *options, config=SPARSE)
    train(tmp_path / 'resumed', 2, *options, config=LAZY, resume=tmp_path / 'lazy' / 'iter_1.pth')
    # the config that a run leaves behind names classes by their modules
    train(tmp_path / 'dumped', 2, *options, config=tmp_path / 'lazy' / 'digits_lazy.py')
    weights = [
        torch.load(tmp_path / name / 'iter_2.pth', weights_only=True)['state_dict']
        for name in ('lazy', 'text', 'resumed', 'dumped')
    ]
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(other[key], weights[0][key]) for key in other)


def test_amp_and_wrappers_are_chosen_by_class(tmp_path, train_tool):
    config = load_config(str(ROOT / LAZY))
    train_tool.enable_amp(config)
    config.dump(tmp_path / 'amp.py')
    train_tool.enable_amp(Config.fromfile(tmp_path / 'amp.py'))
    runner = train(tmp_path / 'amp', 2, config=tmp_path / 'amp.py')
    assert isinstance(runner.optim_wrapper, Bf16OptimWrapper)
    sharded = MODEL_WRAPPERS.get('FullyShardedModel')
    for kind in ('FullyShardedModel', 'mmsparsedit.FullyShardedModel',
                 'mmsparsedit.engine.FullyShardedModel', sharded):  # fmt: skip
        assert class_of(dict(type=kind), MODEL_WRAPPERS, 'none') is sharded
    assert class_of(dict(type='Misspelt'), MODEL_WRAPPERS, 'none') is None
