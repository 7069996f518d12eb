"""Every config builds, inherits in two steps at most, and is what its metafile says it is."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsparsedit.apis.launch import check_keys
from mmsparsedit.apis.metafiles import read_index
from mmsparsedit.models import SparseDiT
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.registry import MODELS

from closed_formulas import dit_macs

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    p
    for p in [*ROOT.glob('configs/*/*.py'), *ROOT.glob('configs/*/*/*.py')]
    if '_base_' not in p.parts
)
ENTRIES = {entry.config: entry for entry in read_index(ROOT / 'model-index.yml')}
REQUIRED = {
    'sparsedit': 'digits b_256 xl_256 xl_256_r44_61 xl_512 xl_512_r61_86 dit_digits dit_b_256 '
    'dit_xl_256 dit_xl_512 digits_finetune xl_1024 xl_256_ddim25 xl_256_rflow5 digits_rflow5 '
    'digits_ddim25',
    'sparselatte': 'moving_digits ffs sky ucf101 taichi',
    'sparsepixart': 'captioned_digits sam_256',
}


def test_the_promised_configs_exist():
    for folder, names in REQUIRED.items():
        present = {p.stem for p in (ROOT / 'configs' / folder).glob('*.py')}
        assert set(names.split()) <= present


def bases(path):
    """The files that a config names as its bases."""
    for line in ast.parse(path.read_text()).body:
        if isinstance(line, ast.Assign) and line.targets[0].id == '_base_':
            named = ast.literal_eval(line.value)
            names = [named] if isinstance(named, str) else named
            return [(path.parent / name).resolve() for name in names]
    return []


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda p: p.stem)
def test_a_config_inherits_in_two_steps_at_most(path):
    """Bases inherit nothing; a row of a table inherits bases; a variant inherits one row."""
    if '_base_' in path.parts:
        assert not bases(path)
    rows = [base for base in bases(path) if '_base_' not in base.parts]
    assert len(rows) <= 1
    for row in rows:
        assert all('_base_' in base.parts for base in bases(row)), f'{row.name} is a variant itself'


def test_every_config_is_in_one_metafile_and_every_entry_has_its_config():
    named = [entry.config for entry in read_index(ROOT / 'model-index.yml')]
    assert len(named) == len(set(named)) and sorted(named) == CONFIGS
    for entry in ENTRIES.values():
        config = str(entry.config.relative_to(ROOT))
        assert config in entry.command
        text = (entry.config.parent / 'metafile.yml').read_text()
        assert f'Config: {config}\n' in text, 'with the path from the root'


@cache
def counted(network, grid):
    """MACs of a network's config; classes are looked up, which costs none."""
    with torch.device('meta'):
        return count_macs(MODELS.build(eval(network)).to('meta'), grid).total


@pytest.mark.slow(1)
@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: '/'.join(p.parts[-2:]))
def test_config_builds_without_storage_and_is_what_its_metafile_says(path):
    config = Config.fromfile(path)
    check_keys(config, str(path))
    assert path.read_text().startswith('# ')
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        generator = MODELS.build(config.model)
    network, prune, entry = generator.network, generator.prune, ENTRIES[path]
    assert all(p.device.type == 'meta' for p in network.parameters())
    assert entry.parameters == sum(value.numel() for value in network.state_dict().values())

    settings, dense = config.model.network.to_dict(), prune is None
    spans = [(None, 1000)] if dense else [(s.grid, s.num_timesteps) for s in prune.stages]
    assert entry.grids == (() if dense else tuple(grid for grid, _ in spans))
    if isinstance(network, SparseDiT):  # counted as this in test_flops.py
        macs = {grid: dit_macs(settings, grid) for grid, _ in spans}
        if entry.paper and entry.paper.counted:
            assert entry.paper.counted == dit_macs(settings, entry.paper.grid, as_paper=True)
    else:
        if settings['type'] == 'SparseLatte':  # its classes cost nothing
            settings.update(num_classes=None)
        macs = {grid: counted(repr(settings), grid) for grid, _ in spans}
    assert entry.macs == round(sum(macs[grid] * share for grid, share in spans) / 1000)

    calls = generator.sampler.timesteps(generator.diffusion)
    if not dense:
        assert {prune.grid_at(t) for t in calls} <= {stage.grid for stage in prune.stages}


@pytest.mark.parametrize(
    'entry',
    [entry for entry in ENTRIES.values() if entry.paper and entry.paper.counted],
    ids=lambda entry: entry.name,
)
def test_the_papers_cost_is_what_its_way_of_counting_gives(entry):
    """To the last printed digit; 88.91 is 88.904."""
    paper = entry.paper
    last_digit = 0.5 if isinstance(paper.gmacs, int) else 0.0065
    off = abs(paper.counted / 1e9 - paper.gmacs)
    assert (off <= last_digit) == paper.reproduced, (paper.gmacs, paper.counted / 1e9)
