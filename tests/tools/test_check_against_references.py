"""Values and times beside public code: without a repository, and the installed diffusers."""

import json

import pytest
import torch

from mmsparsedit.apis.references import speed

from runs import ROOT, run_tool

TOOL = 'tools/misc/check_against_references.py'
TIME = 'tools/misc/time_against_references.py'


@pytest.mark.parametrize(
    'options,message',
    [
        ([], 'name at least one checkout by --dit'),
        (['--dit', 'no/such'], '--dit no/such: no such folder'),
        (['--pixart', '.'], 'expected diffusion/model/nets/PixArtMS.py in it'),
    ],
)
def test_wrong_paths_end_in_one_line(options, message):
    done = run_tool(TOOL, *options)
    assert done.returncode == 2 and message in done.stderr


def test_diffusers_computes_what_its_weights_say(tmp_path):
    """DiT only with its constants; PixArt and Latte as they are."""
    pytest.importorskip('diffusers')
    page, figures = tmp_path / 'page.md', tmp_path / 'figures.json'
    page.write_text('before\n<!-- references:begin -->\n<!-- references:end -->\nafter\n')
    done = run_tool(
        TOOL, '--diffusers', '--document', page, 'references', '--json', figures
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain, exact, *others = (row['deviation'] for row in json.loads(figures.read_text()))
    assert plain > 1e-3  # another embedding of time: another answer
    assert max(exact, *others) < 1e-5
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('after\n')
    assert text.count('huggingface/diffusers](https://github.com/huggingface/diffusers)') == 5
    assert 'LatteTransformer3DModel' in text


def test_times_are_those_of_equal_outputs(tmp_path):
    pytest.importorskip('diffusers')
    figures = tmp_path / 'figures.json'
    size = ['--width', 48, '--heads', 4, '--layers', 3, '--latent', 8, '--rounds', 3]
    done = run_tool(TIME, '--diffusers', '--json', figures, *map(str, size))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(figures.read_text())['rows']
    assert row['deviation'] < 1e-5 and 0 < row['ratio']['min'] <= row['ratio']['max']
    assert f'| {row["ratio"]["median"]:.3f} |' in done.stdout
    done = run_tool(TIME)
    assert done.returncode == 2 and 'nothing to compare with: name --dit' in done.stderr


def test_a_ratio_above_one_is_of_the_quicker_package(monkeypatch):
    def ours():
        return torch.ones(2)

    def theirs():
        return torch.ones(2)

    seconds = {ours: 2.0, theirs: 3.0}
    monkeypatch.setattr(speed, 'timed', lambda side, device: seconds[side])
    assert speed.Pair('equal', ours, theirs).time(3, 'cpu')['ratio']['median'] == 1.5
    with pytest.raises(ValueError, match='differ: outputs differ by 5.0e-01; time means nothing'):
        speed.Pair('differ', ours, lambda: torch.full((2,), 2.0)).time(3, 'cpu')


def test_a_sparse_network_needs_layers_for_a_module():
    with pytest.raises(ValueError, match='of 8 layers: expected at least 9'):
        next(speed.TimedNetworks(48, 4, 8, 8, 1, 'cpu').sparsedit(ROOT))
