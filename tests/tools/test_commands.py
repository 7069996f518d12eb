"""The commands as a user types them: what they print, write and refuse."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from mmsparsedit.visualization import read_request

from runs import ROOT, SPARSE, TINY, run_tool, train

SMALL = [*TINY, 'train_cfg.max_iters=4', 'model.sampler.num_steps=4']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train(folder, 4)
    return folder / 'iter_4.pth'


def test_training_ends_with_where_everything_is(tmp_path):
    options = [o for o in SMALL if not o.startswith(('val_', 'default_hooks.sample_grid'))]
    done = run_tool(
        'tools/train.py', SPARSE, '--work-dir', tmp_path / 'w', '--cfg-options', *options,
        'train_cfg.val_interval=4', 'val_dataloader.dataset.num_samples=20',
        'default_hooks.sample_grid.interval=4', 'default_hooks.sample_grid.num_samples=10',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = dict(line.split(None, 1) for line in done.stdout.splitlines()[-4:])
    result = json.loads(open(last['metrics']).read())
    assert result['metrics']['digits/num_samples'] == 20
    assert 0 <= result['metrics']['digits/recognised'] <= 100
    assert result['metrics']['digits/classifier_held_out'] > 97
    assert result['metrics']['digits/frechet'] > result['metrics']['digits/frechet_real_halves']
    assert set(result['recipe']) >= {'config', 'sampling', 'versions'}
    assert torch.load(last['checkpoint'], weights_only=True)['meta']['iter'] == 4
    assert Image.open(last['pictures']).size[0] > 200
    assert len(done.stdout.splitlines()) < 40, 'the console is for progress'
    assert (
        'Config:' in open(last['log']).read() and 'System environment' in open(last['log']).read()
    )


def test_a_killed_test_goes_on_and_gives_the_same_result(checkpoint, tmp_path):
    def command(name, samples, count=12):
        return run_tool(
            'tools/test.py', SPARSE, checkpoint, '--work-dir', tmp_path / 'w',
            '--out', tmp_path / name, '--show-dir', tmp_path / samples, '--cfg-options',
            'model.network.hidden_size=16', 'model.network.num_heads=2',
            'model.sampler.num_steps=4', 'test_dataloader.batch_size=5',
            f'test_dataloader.dataset.num_samples={count}',
        )  # fmt: skip

    assert command('whole.json', 'a').returncode == 0
    done = command('again.json', 'b')
    assert done.returncode == 0, done.stderr
    # as after a kill: some samples are there, in no order, and one is half written
    for index in (0, 3, 4, 11):
        (tmp_path / 'b' / f'{index:06d}.png').unlink()
    (tmp_path / 'b' / '000003.png.tmp').write_bytes(b'half')
    done = command('again.json', 'b')
    assert done.returncode == 0, done.stderr
    assert '8 of 12 samples are in' in done.stdout + done.stderr
    whole, again = ((tmp_path / name).read_bytes() for name in ('whole.json', 'again.json'))
    assert json.loads(whole)['metrics'] == json.loads(again)['metrics']
    assert (tmp_path / 'a' / 'grid.png').read_bytes() == (tmp_path / 'b' / 'grid.png').read_bytes()
    # a folder of other requests is not mixed in
    other = command('again.json', 'b', count=13)
    assert other.returncode == 2 and 'samples of another run' in other.stderr


def test_two_processes_sample_what_one_does(checkpoint, tmp_path):
    def command(tool, name, *more):
        return (
            *tool, SPARSE, str(checkpoint), *more, '--work-dir', str(tmp_path / 'w'),
            '--out', str(tmp_path / f'{name}.json'), '--show-dir', str(tmp_path / name),
            '--cfg-options', 'model.network.hidden_size=16', 'model.network.num_heads=2',
            'model.sampler.num_steps=4', 'test_dataloader.batch_size=4',
            'test_dataloader.dataset.num_samples=16',
        )  # fmt: skip

    assert run_tool(*command(['tools/test.py'], 'one')).returncode == 0
    done = subprocess.run(
        command(['bash', 'tools/dist_test.sh'], 'two', '2'), cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, 'PORT': '29631', 'OMP_NUM_THREADS': '1'}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for index in range(16):
        one, two = (
            np.asarray(Image.open(tmp_path / name / f'{index:06d}.png')) for name in ('one', 'two')
        )
        assert np.array_equal(one, two), index
    one, two = (json.loads((tmp_path / f'{n}.json').read_text()) for n in ('one', 'two'))
    assert one['metrics'] == pytest.approx(two['metrics'], rel=1e-9)


def test_sampling_requests(checkpoint, tmp_path):
    done = run_tool(
        'tools/sample.py', SPARSE, checkpoint, '--labels', 3, 7, '--seeds', '0-1,5',
        '--sampler', 'ddim', '--num-steps', 4, '--cfg-scale', 2, '--batch-size', 4,
        '--out', tmp_path, '--cfg-options', 'model.network.hidden_size=16',
        'model.network.num_heads=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {p.name for p in tmp_path.glob('*.png')}
    assert names == {
        'grid.png', *(f'label{y}_seed{s}.png' for y in (3, 7) for s in (0, 1, 5))
    }  # fmt: skip
    request = read_request(tmp_path / 'label7_seed5.png')
    assert request['label'] == 7 and request['seed'] == 5 and request['cfg_scale'] == 2
    assert request['sampler'] == dict(type='DDIMSampler', num_steps=4)


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


@pytest.mark.parametrize(
    'arguments,message',
    [
        (('tools/train.py', 'configs/nothing.py'), 'does not exist'),
        (('tools/test.py', SPARSE, 'nothing.pth'), 'nothing.pth does not exist'),
        (('tools/train.py', SPARSE, '--resume', 'nothing.pth'), 'nothing.pth does not exist'),
        (('tools/train.py', 'configs/sparsedit/xl_512.py'), 'data/imagenet512_latents'),
        (
            ('tools/model_converters/convert_checkpoint.py', 'a', 'b.zip', '--config', SPARSE),
            'must end in',
        ),
        (('tools/analysis_tools/plot_schedule.py', 'configs/sparsedit/dit_digits.py'), 'no prune'),
    ],
)
def test_missing_things_are_named(arguments, message):
    done = run_tool(*arguments)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr


def test_missing_latents_name_the_command_that_makes_them():
    done = run_tool('tools/train.py', 'configs/sparsedit/xl_512.py')
    assert 'tools/dataset_converters/extract_latents.py' in done.stderr


def test_a_dense_checkpoint_is_no_sparse_model(tmp_path):
    train(tmp_path / 'dense', 2, config='configs/sparsedit/dit_digits.py')
    done = run_tool(
        'tools/test.py', SPARSE, tmp_path / 'dense' / 'iter_2.pth', '--work-dir', tmp_path / 'w',
        '--cfg-options', 'model.network.hidden_size=16', 'model.network.num_heads=2',
    )  # fmt: skip
    assert done.returncode == 2 and 'is a dense checkpoint' in done.stderr
    checkpoint = tmp_path / 'dense' / 'iter_2.pth'
    done = run_tool('tools/test.py', SPARSE, checkpoint, '--work-dir', tmp_path / 'w2')
    assert done.returncode == 2 and 'weights do not fit' in done.stderr


def test_get_flops_prints_stages_means_and_the_paper(tmp_path):
    done = run_tool(
        'tools/analysis_tools/get_flops.py', 'configs/sparsedit/xl_512.py', '--json',
        tmp_path / 'f.json',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'the paper: 235 G' in done.stdout and 'parameters 681,327,392' in done.stdout
    report = json.loads((tmp_path / 'f.json').read_text())
    assert report['mean_t']['gmacs'] == pytest.approx(224.79, rel=1e-3)
    assert report['mean_t']['as_paper'] == pytest.approx(235.28, rel=1e-3)
    assert [row['grid'] for row in report['stages']] == [[10, 10], [9, 9], [8, 8], [6, 6]]
    assert sum(report['stages'][0]['parts'].values()) == pytest.approx(report['stages'][0]['gmacs'])


def test_converted_checkpoints_read_back(checkpoint, tmp_path):
    sizes = ('model.network.hidden_size=16', 'model.network.num_heads=2')
    done = run_tool(
        'tools/model_converters/convert_checkpoint.py', checkpoint, tmp_path / 'net.safetensors',
        '--config', SPARSE, '--verbose', '--cfg-options', *sizes,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    expected = torch.load(checkpoint, weights_only=True)['state_dict']
    written = load_file(tmp_path / 'net.safetensors')
    assert {f'network.{k}' for k in written} == set(expected)
    assert all(torch.equal(v, expected[f'network.{k}']) for k, v in written.items())


def test_example_project_trains_with_its_own_modules(tmp_path):
    done = run_tool(
        'tools/train.py', 'projects/example_project/configs/digits_cosine.py', '--work-dir',
        tmp_path, '--cfg-options', *SMALL, env=dict(PYTHONPATH='.'),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=True)['state_dict']
    assert 'network.bottom.0.attn.v.weight' in state


def test_example_schedule_is_its_cosine(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from projects.example_project.example_project import CosinePruneScheduler

    prune = CosinePruneScheduler(0.4, 0.8, token_grid=(16, 16))
    assert prune.rate_at(500) == pytest.approx(0.6)
    assert [s.grid[0] for s in prune.stages] == [12, 10, 8, 7]
