"""tools/model_converters/convert_checkpoint.py: what it writes is what was read."""

import torch

from runs import SPARSE, run_tool


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
