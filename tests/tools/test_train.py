"""tools/train.py as a user types it: what it prints, writes and refuses."""

import json

import pytest
import torch
from PIL import Image

from runs import SPARSE, TINY, run_tool

SMALL = [*TINY, 'train_cfg.max_iters=4', 'model.sampler.num_steps=4']


def test_training_ends_with_where_everything_is(tmp_path):
    options = [o for o in SMALL if not o.startswith(('val_', 'default_hooks.'))]
    done = run_tool(
        'tools/train.py', SPARSE, '--work-dir', tmp_path / 'w', '--cfg-options', *options,
        'train_cfg.val_interval=4', 'val_dataloader.dataset.num_samples=20',
        'val_cfg.type=SampledValLoop', 'val_cfg.num_steps=2',
        'default_hooks.sample_grid.interval=4', 'default_hooks.sample_grid.num_samples=10',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = dict(line.split(None, 1) for line in done.stdout.splitlines()[-4:])
    result = json.loads(open(last['metrics']).read())
    assert result['metrics']['digits/num_samples'] == 20
    assert 0 <= result['metrics']['digits/recognised'] <= 100
    assert result['metrics']['digits/classifier_held_out'] > 97
    assert result['metrics']['digits/frechet'] > result['metrics']['digits/frechet_real_halves']
    assert result['recipe']['sampling']['model']['sampler']['num_steps'] == 2
    assert result['metrics']['cost/nfe'] == 2 * 2  # steps, halves of guidance
    assert set(result['recipe']) >= {'config', 'sampling', 'versions'}
    assert torch.load(last['checkpoint'], weights_only=True)['meta']['iter'] == 4
    assert Image.open(last['pictures']).size[0] > 200
    assert len(done.stdout.splitlines()) < 40, 'the console is for progress'
    assert (
        'Config:' in open(last['log']).read() and 'System environment' in open(last['log']).read()
    )


@pytest.mark.parametrize(
    'options,message',
    [
        (['optim_wraper.x=1'], "did you mean 'optim_wrapper'"),
        (['model.network.hidden_sze=3'], "unexpected keyword argument 'hidden_sze'; it takes"),
        (['model.prune.r_min=1.2'], 'r_min must be in [0, 1), got 1.2'),
        (['model.prune.r_min=0.9'], 'Swap them'),
        (['load_from=nowhere.pth'], "'nowhere.pth' does not exist"),
        (['model.sampler.type=DDPMSmpler'], 'Did you mean DDPMSampler?'),
        (['val_dataloader.dataset.labels=[3,11]'], 'expected 0 to 9'),
    ],
)
def test_bad_input_of_training_is_one_clear_line(options, message, tmp_path):
    done = run_tool(
        'tools/train.py', SPARSE, '--work-dir', tmp_path, '--cfg-options',
        'train_cfg.max_iters=2', 'train_cfg.val_interval=1', *options,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr
    assert done.stderr.count('\n') <= 3, done.stderr
