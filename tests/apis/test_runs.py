"""Tables of finished runs: what is read, how seeds are put together, what is refused."""

import json
import runpy

import pytest
from PIL import Image

from mmsparsedit.apis.launch import ConfigError
from mmsparsedit.apis.runs import Run, measure_speed, read_run, run_heading, runs_table

from runs import DENSE, ROOT, SPARSE, TINY, run_tool, train


def run(name, **metrics):
    return Run(name, f'{name}.py', 'x.pth', metrics)


def test_seeds_of_a_config_are_one_row_with_mean_and_sample_deviation():
    runs = [run('a', fid=1.0), run('b', fid=7.0), run('a', fid=2.0), run('a', fid=3.0)]
    lines = runs_table(runs, ['fid'])
    assert lines == [
        '| run | fid |',
        '| --- | ---: |',
        '| `a` | 2.0 ± 1.0 |',
        '| `b` | 7 |',
    ]


def test_columns_are_chosen_and_headed():
    runs = [run('a', **{'cost/gmacs_mean': 0.125, 'x/each': 1.0})]
    assert runs_table(runs, ['cost/gmacs_mean', 'x/each=share, %'])[0] == (
        '| run | gmacs mean | share, % |'
    )
    with pytest.raises(ConfigError, match=r"\['fid'\] are not in all runs.*cost/gmacs_mean"):
        runs_table(runs, ['fid'])


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    (tmp_path / 'metrics.json').write_text('{}')
    with pytest.raises(ConfigError, match='got 0 configs, checkpoint missing, metrics.json t'):
        read_run(tmp_path)


def test_comparison_of_two_work_dirs(tmp_path):
    """The tool on real runs: moved work dirs, timed by turns, a table in a document, a picture."""
    validated = [o for o in TINY if not o.startswith('val_')]
    validated += ['train_cfg.val_interval=2', 'val_dataloader.dataset.num_samples=20']
    for name, config in (('dense', DENSE), ('sparse', SPARSE)):
        options = [*validated, 'model.sampler.num_steps=2']
        train(tmp_path / 'first' / name, 2, *options, config=config, tiny=False)
    (tmp_path / 'first').rename(tmp_path / 'moved')
    document = tmp_path / 'table.md'
    document.write_text('before\n<!-- t:begin -->\nold\n<!-- t:end -->\nafter\n')
    done = run_tool(
        'tools/analysis_tools/compare_runs.py', tmp_path / 'moved/dense', tmp_path / 'moved/sparse',
        '--batch-size', 4, '--rounds', 1, '--document', document, 't',
        '--json', tmp_path / 'f.json',
        '--picture', tmp_path / 'p.png', '--samples', 4,
        '--keys', 'cost/gmacs_mean_t=GMACs', 'digits/num_samples', 'samples_per_second',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = document.read_text().splitlines()
    assert lines[:2] == ['before', '<!-- t:begin -->'] and lines[-1] == 'after'
    assert lines[2] == '| run | GMACs | num samples | samples per second |'
    assert [line.split(' | ')[0] for line in lines[4:6]] == ['| `dit_digits`', '| `digits`']
    dense, sparse = json.loads((tmp_path / 'f.json').read_text())
    assert sparse['metrics']['cost/gmacs_mean_t'] < dense['metrics']['cost/gmacs_mean_t']
    assert sparse['metrics']['samples_per_second'] > 0
    with Image.open(tmp_path / 'p.png') as picture:
        # a grid of one row under a heading for each run, as wide as the longer heading
        assert picture.width >= 4 * (64 + 4) + 4 and picture.height == 2 * (34 + 64 + 16 + 8)


def test_a_heading_says_dense_or_sparse_and_the_seconds():
    sparse = run('digits', **{'cost/gmacs_per_sample': 0.95, 'samples_per_second': 16.0})
    sparse.recipe = dict(model=dict(prune=dict(r_min=0.4)))
    assert run_heading(sparse) == 'sparse: digits, 0.95 GMACs and 0.0625 s a sample'
    assert run_heading(run('dit_digits')) == 'dense: dit_digits'


def test_one_config_tested_with_several_options(tmp_path):
    """Work dirs of tools/test.py, a row each; speed with the options of each."""
    trained = train(tmp_path / 'trained', 1, *TINY, tiny=False)
    for steps in (2, 6):
        done = run_tool(
            'tools/test.py', SPARSE, trained.work_dir + '/iter_1.pth',
            '--work-dir', tmp_path / f'steps{steps}', '--sampler', 'ddpm', '--num-steps', steps,
            '--cfg-options', *TINY[:2],
            'test_dataloader.dataset.num_samples=20',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    runs = [read_run(tmp_path / name, named_by_folder=True) for name in ('steps2', 'steps6')]
    measure_speed(runs, batch_size=4, rounds=1, device='cpu')
    assert [run.name for run in runs] == ['steps2', 'steps6']
    two, six = (run.metrics for run in runs)
    assert (two['cost/nfe'], six['cost/nfe']) == (4, 12)
    assert 2 < six['cost/gmacs_per_sample'] / two['cost/gmacs_per_sample'] < 4
    lines = runs_table(runs, ['samples_per_second'])
    assert lines[2].startswith('| `steps2` |') and len(lines) == 4


def test_runs_that_differ_in_more_than_their_seed_are_no_seeds():
    runs = [run('a', fid=1.0), run('a', fid=2.0)]
    for number, found in enumerate(runs):
        found.recipe = dict(train_cfg=dict(max_iters=100), randomness=dict(seed=number))
    assert '1.50 ± 0.71' in runs_table(runs, ['fid'])[2]
    runs[1].recipe['train_cfg'] = dict(max_iters=200)
    with pytest.raises(ConfigError, match='runs of a with another train_cfg, not seeds of one'):
        runs_table(runs, ['fid'])


@pytest.mark.parametrize('tool,arguments', [('run_ablations', []), ('compare_runs', ['a'])])
def test_no_document_is_written_without_being_named(tool, arguments):
    parse_args = runpy.run_path(str(ROOT / f'tools/analysis_tools/{tool}.py'))['parse_args']
    args = parse_args(arguments)
    assert args.document is None and args.json is None
