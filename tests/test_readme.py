"""What README and docs/commands.md tell a new user to type."""

import re
import shlex

import pytest
import torch

from runs import ROOT, run_tool, train


def blocks(path, language):
    return re.findall(rf'^```{language}\n(.*?)^```', (ROOT / path).read_text(), re.M | re.S)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    train(folder, 1, 'train_dataloader.batch_size=4', 'val_dataloader=None', 'val_cfg=None',
          'val_evaluator=None', 'param_scheduler=None', 'default_hooks.sample_grid=None',
          tiny=False)  # fmt: skip
    return folder / 'iter_1.pth'


@pytest.mark.parametrize('path', ['README.md', 'docs/commands.md'])
def test_python_blocks_run(path, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(path, 'python')
    assert found
    for block in found:
        names = {}
        exec(block.replace('work_dirs/digits/iter_1500.pth', str(digits)), names)
        if 'images' in names:
            assert len(names['images']) == 4
        if 'out' in names:
            assert names['out'].shape == (2, 8, 32, 32) and not torch.isnan(names['out']).any()


@pytest.mark.slow(10)
def test_a_large_config_is_tried_without_data(tmp_path):
    (block,) = [b for b in blocks('docs/commands.md', 'bash') if 'make_toy_latents' in b]
    data = str(tmp_path / 'toy')
    made, trained = block.replace('data/toy_latents', data).replace('\\\n', ' ').splitlines()
    assert run_tool(*shlex.split(made)[1:]).returncode == 0
    done = run_tool(
        *shlex.split(trained)[1:], 'model.network.hidden_size=24', 'model.network.num_heads=2',
        f'work_dir={tmp_path / "w"}', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '3/3' in done.stdout
