"""The tools evaluate.py and build_reference.py as users run them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsparsedit.evaluation import features

import processes
from eval_helpers import TinyExtractor, random_images

ROOT = Path(__file__).parents[2]
EVALUATE = ROOT / 'tools/analysis_tools/evaluate.py'
BUILD = ROOT / 'tools/dataset_converters/build_reference.py'


def load(path):
    """The module of a tool, to call its ``main`` without a new process."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(monkeypatch):
    """RandomInception replaced by the small extractor of the tests, under a random one's label."""

    def forward(self, images):
        return TinyExtractor()(images)

    def start(self, seed=0, device='cpu'):
        self.description = {'name': self.label, 'seed': seed}

    monkeypatch.setattr(features.RandomInception, '__init__', start)
    monkeypatch.setattr(features.RandomInception, '__call__', forward)


def test_options_are_shown_without_loading_torch():
    for tool in (EVALUATE, BUILD):
        code = (
            'import runpy, sys\n'
            f'sys.argv = ["{tool.name}", "--help"]\n'
            'try:\n'
            f'    runpy.run_path({str(tool)!r}, run_name="__main__")\n'
            'finally:\n'
            '    assert "torch" not in sys.modules and "numpy" not in sys.modules\n'
        )
        found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert '--video' in found.stdout and '--weights' in found.stdout


@pytest.mark.usefixtures('tiny')
def test_npz_and_folder_give_the_same_numbers(tmp_path, capsys):
    images = random_images(30, seed=1, high=210)
    np.savez(tmp_path / 'reference.npz', random_images(40))
    np.savez(tmp_path / 'samples.npz', images)
    (tmp_path / 'samples').mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / 'samples' / f'{index}.png')
    results = []
    for name, size in (('samples.npz', 64), ('samples', 7)):
        code = load(EVALUATE).main(
            [
                str(tmp_path / 'reference.npz'),
                str(tmp_path / name),
                '--random-inception=0',
                '--device=cpu',
                f'--batch-size={size}',
                f'--cache-dir={tmp_path / "cache"}',
                f'--json={tmp_path / "out.json"}',
            ]
        )
        assert code == 0
        results.append(json.loads((tmp_path / 'out.json').read_text()))
    assert results[0]['metrics'] == pytest.approx(results[1]['metrics'], rel=1e-9)
    recipe = results[0]['recipe']
    assert recipe['samples']['count'] == 30 and len(recipe['samples']['sha256']) == 64
    assert recipe['metrics'][0]['features'] == {'name': 'random-inception', 'seed': 0}
    assert recipe['metrics'][0]['reference']['path'].endswith('reference.npz')
    assert set(recipe['versions']) >= {'torch', 'scipy', 'mmsparsedit', 'torch-fidelity'}
    shown = capsys.readouterr().out
    assert 'adm_random_inception/fid' in shown and '30 samples of' in shown


@pytest.mark.usefixtures('tiny')
def test_metrics_are_shown_where_they_cannot_be_written(tmp_path, capsys):
    np.savez(tmp_path / 'images.npz', random_images(20))
    images = str(tmp_path / 'images.npz')
    code = load(EVALUATE).main([images, images, '--random-inception=0', '--json=/dev/full'])
    shown = capsys.readouterr()
    assert code == 2 and 'No space left on device' in shown.err
    assert 'adm_random_inception/fid' in shown.out and '20 samples of' in shown.out


@pytest.mark.usefixtures('tiny')
def test_built_reference_is_evaluated_against(tmp_path, capsys):
    np.savez(tmp_path / 'data.npz', random_images(40))
    np.savez(tmp_path / 'samples.npz', random_images(30, seed=1))
    arguments = [str(tmp_path / 'data.npz'), str(tmp_path / 'own.npz'), '--random-inception=0']
    assert load(BUILD).main(arguments) == 0
    assert '40 samples of' in capsys.readouterr().out
    numbers = []
    for name in ('data.npz', 'own.npz'):
        arguments = [str(tmp_path / name), str(tmp_path / 'samples.npz'), '--random-inception=0']
        arguments += ['--json=-', '--device=cpu', f'--cache-dir={tmp_path / "cache"}']
        assert load(EVALUATE).main(arguments) == 0
        numbers.append(json.loads(capsys.readouterr().out)['metrics'])
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def test_user_errors_are_one_line_and_exit_code_2(tmp_path):
    (tmp_path / 'bad.npz').write_text('no archive')
    np.savez(tmp_path / 'good.npz', random_images(5))
    good, bad = str(tmp_path / 'good.npz'), str(tmp_path / 'bad.npz')
    found = processes.run(
        [sys.executable, str(EVALUATE), good, bad, '--random-inception=0'],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    )
    assert found.returncode == 2 and found.stdout == ''
    assert found.stderr.count('\n') == 1 and 'Traceback' not in found.stderr
    assert found.stderr.startswith('evaluate.py: error: got ') and 'bad.npz' in found.stderr


@pytest.mark.usefixtures('tiny')
@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['good.npz', 'nothing'], 'nothing: no such file or folder'),
        (['good.npz', 'good.npz', '--num-samples=50'], 'got 5 samples in'),
        (['good.npz', 'large.npz'], 'got samples of 16 x 16 pixels, expected 8 x 8'),
        (['good.npz', 'float.npz'], 'got NaN images in'),
        (['good.npz', 'good.npz', '--weights=nowhere.pth'], 'looked for nowhere.pth'),
        (['good.npz', 'good.npz', '--video'], 'expected a folder of videos'),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, text):
    np.savez(tmp_path / 'good.npz', random_images(5))
    np.savez(tmp_path / 'large.npz', random_images(5, size=16))
    np.savez(tmp_path / 'float.npz', np.full((5, 8, 8, 3), np.nan, dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    if not any('--weights' in argument for argument in arguments):
        arguments = [*arguments, '--random-inception=0']
    assert load(EVALUATE).main([*arguments, '--device=cpu']) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and text in error
