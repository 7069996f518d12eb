"""tools/sample.py as a user types it."""

from mmsparsedit.visualization import read_request

from runs import SPARSE, run_tool


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
