"""A budget becomes grids whose exact cost is at most the budget."""

import re

import pytest

from mmsparsedit.apis.budget import Budgets
from mmsparsedit.apis.launch import load_config
from mmsparsedit.apis.studies import STUDIES
from mmsparsedit.models.cost import macs_by_grid, trajectory_macs
from mmsparsedit.registry import MODELS

from runs import run_tool, train


@pytest.fixture(scope='module')
def elastic():
    return load_config('sparsedit/digits_elastic').model


@pytest.fixture(scope='module')
def budgets(elastic):
    return Budgets(elastic)


def cost(model):
    generator = MODELS.build(model).to('meta')
    return trajectory_macs(generator, macs_by_grid(generator))


def test_the_share_is_that_of_the_calls_and_never_above_the_budget(elastic, budgets):
    dense = cost(load_config('sparsedit/dit_digits').model)
    shares = []
    for budget in (0.45, 0.8):
        chosen = budgets.choose(budget)
        shares.append(chosen.share)
        assert budget - 0.03 < chosen.share <= budget
        assert chosen.share == cost({**elastic, 'prune': chosen.prune}) / dense
        assert list(chosen.grids) == sorted(chosen.grids, reverse=True)
    assert shares == sorted(shares)


@pytest.mark.parametrize('data', STUDIES)
def test_the_budgets_of_the_study_are_within_reach(data):
    study = STUDIES[data]
    model = load_config(str(study.config('{}_cheap_guidance'))).model
    budgets = Budgets({**model, 'cfg_prune': None, 'distillation': None})
    shares = [budgets.choose(budget).share for budget in study.budgets]
    assert len(set(shares)) == len(shares) and set(study.specialised) <= set(study.budgets)


def test_out_of_reach_names_the_range(budgets):
    with pytest.raises(ValueError, match='out of reach') as raised:
        budgets.choose(0.2)
    found = re.search(r'trained for ([\d.]+) to ([\d.]+)', str(raised.value))
    low, high = map(float, found.groups())
    assert budgets.choose(low).share == pytest.approx(low, abs=1e-4)
    with pytest.raises(ValueError, match='out of reach'):
        budgets.choose(high + 1e-3)


def test_another_schedule_is_refused():
    with pytest.raises(ValueError, match='the config has TimestepPruneScheduler'):
        Budgets(load_config('sparsedit/digits').model)


def test_one_checkpoint_sampled_at_two_budgets(tmp_path):
    small = ('model.network.hidden_size=16', 'model.network.num_heads=2')
    config = 'configs/sparsedit/digits_elastic.py'
    train(tmp_path, 2, config=config)
    command = (
        'tools/sample.py', config, tmp_path / 'iter_2.pth', '--labels', 3, '--num-steps', 4,
        '--out', tmp_path / 'out',
    )  # fmt: skip
    done = run_tool(*command, '--target-speedup', 2, '--cfg-options', *small)
    assert done.returncode == 0, done.stderr
    assert 'budget 0.5: 0.4' in done.stdout and 'from clean to noisy' in done.stdout
    done = run_tool(*command, '--budget', 0.01, '--cfg-options', *small)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert "budget 0.01 of the dense model's MACs is out of reach" in done.stderr
