"""The ablations from training to table, restarted, and refused after a change."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from mmsparsedit.apis import runs
from mmsparsedit.apis.ablations import SUITES, Suite

import processes
from runs import ROOT

OPTIONS = (
    'model.network.hidden_size=16', 'model.network.num_heads=2', 'model.sampler.num_steps=2',
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler=None',
    'train_dataloader.batch_size=8', 'default_hooks.sample_grid=None',
    'default_hooks.throughput=None',
)  # fmt: skip


@pytest.fixture
def tool():
    spec = spec_from_file_location('run_ablations', ROOT / 'tools/analysis_tools/run_ablations.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_ablations(tool, monkeypatch, capfd):
    """The command in this process; its trainings are processes as before, which start preloaded."""
    monkeypatch.setattr(tool, 'subprocess', processes)

    def run(*arguments):
        code = 0
        try:
            tool.run_tool(tool.main, tool.parse_args([*map(str, arguments)]))
        except SystemExit as end:
            code = end.code
        return processes.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.mark.slow(30)
def test_ablations_make_their_table_once(run_ablations, tmp_path):
    document = tmp_path / 'page.md'
    document.write_text('before\n<!-- t:begin -->\n<!-- t:end -->\n')
    command = [
        '--seeds', 0, 1, '--jobs', 2, '--only', 'digits16_scratch', 'digits16_pool0',
        '--work-dir', tmp_path / 'runs', '--json', tmp_path / 'f.json',
        '--document', document, 't', '--cfg-options', *OPTIONS,
    ]  # fmt: skip
    samples = 'val_dataloader.dataset.num_samples='
    done = run_ablations(*command, f'{samples}20')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = document.read_text().splitlines()
    assert [line.split(' | ')[0] for line in lines[4:7]] == [
        '| `dit_digits16`',
        '| `digits16_scratch`',
        '| `digits16_pool0`',
    ]
    figures = json.loads((tmp_path / 'f.json').read_text())['digits16']
    rows = figures['rows']
    assert [(row['config'], row['seed']) for row in rows[:3]] == [
        ('dit_digits16', 0),
        ('dit_digits16', 1),
        ('digits16_scratch', 0),
    ]
    assert len(rows) == 6 and len({row['recipe'] for row in rows}) == 6
    first, second = (row['metrics']['digits/frechet'] for row in rows[:2])
    assert first != second  # the seeds differ
    # fine-tuned from the dense model of its seed
    log = (tmp_path / 'runs/digits16_pool0_seed1/digits16_pool0.py').read_text()
    assert str(tmp_path / 'runs/dit_digits16_seed1/iter_2.pth') in log

    # what the figures hold is not trained again when its work dir is gone
    shutil.rmtree(tmp_path / 'runs/digits16_scratch_seed0')
    shutil.rmtree(tmp_path / 'runs/digits16_pool0_seed1')
    results = sorted(tmp_path.glob('runs/*/metrics.json'))
    assert len(results) == 4
    times = [path.stat().st_mtime_ns for path in results]
    assert run_ablations(*command, f'{samples}20').returncode == 0
    assert sorted(tmp_path.glob('runs/*/metrics.json')) == results
    assert [path.stat().st_mtime_ns for path in results] == times
    assert json.loads((tmp_path / 'f.json').read_text())['digits16'] == figures
    assert document.read_text().splitlines() == lines

    # a training that was stopped goes on from its newest checkpoint
    stopped = tmp_path / 'runs/digits16_pool0_seed0'
    (stopped / 'metrics.json').unlink()
    (tmp_path / 'f.json').unlink()
    assert run_ablations(*command, f'{samples}20').returncode == 0
    logs = ''.join(path.read_text() for path in stopped.glob('*/*.log'))
    assert logs.count('resumed epoch: 0, iter: 2') == 1
    changed = run_ablations(*command, f'{samples}24')
    assert changed.returncode == 2
    assert 'holds a run with another val_dataloader: delete it' in changed.stderr


def test_what_is_missing_is_run_after_what_it_starts_from(tmp_path):
    suite = Suite('mnist28', tmp_path, [0])
    levels = [[row.name for row in level] for level in suite.levels(0)]
    assert levels[0] == ['dit_mnist28', 'mnist28']
    assert 'mnist28_dynamic' in levels[1] and 'dit_mnist28_5steps' in levels[1]
    assert levels[2] == ['mnist28_distill_long_5steps', 'mnist28_distill_long_25steps']

    rows = {row.name: row for row in SUITES['mnist28']}
    kept = [
        dict(config=name, seed=0, recipe=suite.digest(rows[name], 0), metrics={'real/frechet': 1.0})
        for name in rows
        if name != 'mnist28_dynamic'
    ]
    # only what the missing row starts from is trained again; figures of another recipe count not
    suite = Suite('mnist28', tmp_path, [0], kept={'rows': kept})
    assert [[row.name for row in level] for level in suite.levels(0)] == [
        ['dit_mnist28'],
        ['mnist28_dynamic'],
    ]
    other = [dict(kept[1], recipe='of another length')]
    assert not Suite('mnist28', tmp_path, [0], kept={'rows': other}).figures
    assert suite.table()[2].startswith('| `dit_mnist28` | – |')


def test_the_dense_model_of_a_seed_teaches_what_is_distilled_from_it(tool, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(tool, '_tool', lambda *call: given.append([str(part) for part in call]))
    monkeypatch.setattr(runs, 'read_run', lambda folder: runs.Run('', '', f'{folder}/d.pth', {}))
    suite = Suite('mnist28', tmp_path, [3])
    monkeypatch.setattr(suite, 'collect', lambda *row: None)
    dense, folder = tmp_path / 'dit_mnist28_seed3/d.pth', tmp_path / 'mnist28_distill_seed3'
    tool.run(suite, suite.rows['mnist28_distill'], 3, 1)
    tool.run(suite, suite.rows['mnist28_finetune'], 3, 1)
    fit, distilled, _, plain = given
    assert fit[0] == 'model_converters/fit_start.py' and str(dense) in fit
    assert f'model.distillation.teacher={dense}' in distilled
    assert f'load_from={folder}/fitted.pth' in distilled and '--resume' in distilled
    assert not any('teacher' in part for part in plain)


def test_where_a_teacher_lies_is_no_part_of_a_recipe():
    config = ROOT / 'configs/sparsedit/mnist28_distill.py'
    here, there = (runs.recipe_of(config, [f'model.distillation.teacher={p}']) for p in 'ab')
    assert here == there
    assert runs.recipe_of(config, ['model.distillation.token_weight=0.5']) != here
