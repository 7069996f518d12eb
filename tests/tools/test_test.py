"""tools/test.py as a user types it: killed, on two processes, with the wrong checkpoint."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from runs import ROOT, SPARSE, run_tool, tool, train


@pytest.mark.slow(12)
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
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
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


@pytest.mark.slow(20)
def test_two_processes_sample_what_one_does(checkpoint, tmp_path):
    def command(start, name, *more):
        return (
            *start, SPARSE, str(checkpoint), *more, '--work-dir', str(tmp_path / 'w'),
            '--out', str(tmp_path / f'{name}.json'), '--show-dir', str(tmp_path / name),
            '--cfg-options', 'model.network.hidden_size=16', 'model.network.num_heads=2',
            'model.sampler.num_steps=4', 'test_dataloader.batch_size=4',
            'test_dataloader.dataset.num_samples=16',
        )  # fmt: skip

    assert run_tool(*command(['tools/test.py'], 'one')).returncode == 0
    done = subprocess.run(
        command(['bash', 'tools/dist_test.sh'], 'two', '2'), cwd=ROOT, capture_output=True,
        text=True, env=tool(env=dict(PORT='29631'))['env'], timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for index in range(16):
        one, two = (
            np.asarray(Image.open(tmp_path / name / f'{index:06d}.png')) for name in ('one', 'two')
        )
        assert np.array_equal(one, two), index
    one, two = (json.loads((tmp_path / f'{n}.json').read_text()) for n in ('one', 'two'))
    assert one['metrics'] == pytest.approx(two['metrics'], rel=1e-9)


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
