"""Studies give every run its start, its teacher and its length; what is run is faked."""

from importlib.util import module_from_spec, spec_from_file_location

import pytest

from mmsparsedit.apis import runs, studies

from runs import ROOT

METRICS = {'real/recognised': 90.0, 'real/frechet': 50.0, 'cost/gmacs_per_sample': 2.0}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """``study(tool, *arguments)`` gives the calls it makes, by the folders of their results."""

    def run(name, *arguments):
        calls = {}

        def run_once(folder, result, tool, *given):
            calls[folder.name] = [tool, *map(str, given)]

        def read_run(folder, *_):
            share = 0.5 if 'only' in folder.name else 1.0
            metrics = {**METRICS, 'cost/gmacs_per_sample': 2.0 * share}
            return runs.Run('', '', f'{folder}/last.pth', metrics)

        spec = spec_from_file_location(name, ROOT / f'tools/analysis_tools/{name}.py')
        tool = module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(tool, 'run_once', run_once)
        monkeypatch.setattr(studies, 'run_once', run_once)
        monkeypatch.setattr(studies, 'read_run', read_run)
        monkeypatch.setattr(runs, 'read_run', read_run)
        common = ('--data', 'mnist28', '--work-dir', tmp_path)
        tool.main(tool.parse_args([str(part) for part in (*common, *arguments)]))
        return calls

    return run


def option(call, key):
    """Value of an option ``key=value`` of a call; the options of both are unique."""
    [value] = [part.removeprefix(f'{key}=') for part in call if part.startswith(f'{key}=')]
    return value


def test_conversions(study, tmp_path):
    other = ROOT / 'configs/sparsedit/ablations/mnist28_handmade.py'
    calls = study('run_conversions', '--percent', 3, '--seeds', 4, '--also', other)
    dense = f'{tmp_path}/dit_mnist28_seed4/last.pth'
    fitted = f'{tmp_path}/fit_mnist28_distill_seed4/fitted.pth'
    expected = dict(
        plain=(dense, None),
        fitted=(fitted, None),
        distilled=(dense, dense),
        fitted_distilled=(fitted, dense),
        fitted_distilled_nearest=(
            f'{tmp_path}/fit_mnist28_distill_nearest_seed4/fitted.pth',
            dense,
        ),
        fitted_lora=(fitted, None),
        mnist28_handmade=(f'{tmp_path}/fit_mnist28_handmade_seed4/fitted.pth', dense),
    )
    for name, (start, teacher) in expected.items():
        call = calls[f'{name}_3_seed4']
        assert option(call, 'load_from') == start
        if teacher is None:
            assert option(call, 'model.distillation') == 'None'
        else:
            assert option(call, 'model.distillation.teacher') == teacher
        assert option(call, 'train_cfg.max_iters') == '180'
        assert option(call, 'randomness.seed') == '4'
        assert (studies.STUDIES['mnist28'].sampling[0] in call) and call[0] == 'train.py'
    assert str(other) in calls['mnist28_handmade_3_seed4']
    assert any('mnist28_lora.py' in part for part in calls['fitted_lora_3_seed4'])
    nearest = calls['fitted_distilled_nearest_3_seed4']
    assert option(nearest, 'model.network.upsample') == 'nearest'
    assert len(calls) == len(expected) + 5  # three fits, the dense training and its test


def test_budgets(study, tmp_path, capsys):
    calls = study('run_budgets', '--seeds', 0, 1, '--budgets', 0.58, 0.8, '--specialised', 0.58)
    for seed in (0, 1):
        dense = f'{tmp_path}/dit_mnist28_seed{seed}/last.pth'
        for name in ('cheap_guidance', 'only_0.58'):
            call = calls[f'{name}_seed{seed}']
            assert option(call, 'load_from') == f'{tmp_path}/fit_{name}_seed{seed}/fitted.pth'
            assert option(call, 'model.distillation.teacher') == dense
            assert option(call, 'train_cfg.max_iters') == '600'
        elastic = f'{tmp_path}/cheap_guidance_seed{seed}/last.pth'
        for name, budget in (('full_guidance', None), ('elastic_0.58', '0.58')):
            call = calls[f'{name}_seed{seed}']
            assert call[0] == 'test.py' and elastic in call and 'model.cfg_prune=None' in call
            assert ('--budget' in call) == (budget is not None)
            assert budget is None or call[call.index('--budget') + 1] == budget
    config = (tmp_path / 'only_580_seed0.py').read_text()
    assert 'mnist28_distill.py' in config and "'grids': [(6, 6), (6, 6), (6, 6), (4, 4)]" in config
    rows = [line.split(' | ') for line in capsys.readouterr().out.splitlines() if '`' in line]
    assert [row[0] for row in rows] == [
        '| `dense`', '| `cheap_guidance`', '| `full_guidance`', '| `elastic_0.58`',
        '| `elastic_0.8`', '| `only_0.58`',
    ]  # fmt: skip
    assert [row[1] for row in rows] == ['1'] * 5 + ['0.5']  # of the dense sample's MACs
