"""projects/example_project: modules of a user's own, outside the package."""

import pytest
import torch

from runs import ROOT, TINY, run_tool

SMALL = [*TINY, 'train_cfg.max_iters=4', 'model.sampler.num_steps=4']


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
