"""Every config builds, says which row of the paper it is, and names data that is checked."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsparsedit.apis.cost import paper_figure
from mmsparsedit.apis.launch import check_keys
from mmsparsedit.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    p
    for p in [*ROOT.glob('configs/*/*.py'), *ROOT.glob('configs/*/*/*.py')]
    if '_base_' not in p.parts
)
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


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: '/'.join(p.parts[-2:]))
def test_config_builds_without_storage(path):
    config = Config.fromfile(path)
    check_keys(config, str(path))
    assert path.read_text().startswith('# ')
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        generator = MODELS.build(config.model)
    assert all(p.device.type == 'meta' for p in generator.network.parameters())
    calls = generator.sampler.timesteps(generator.diffusion)
    if generator.prune is not None:
        grids = {generator.prune.grid_at(t) for t in calls}
        assert grids <= {stage.grid for stage in generator.prune.stages}


@pytest.mark.parametrize(
    'name,figure', [('xl_512', 235), ('xl_256', 68.05), ('b_256', 14.34), ('digits', None)]
)
def test_the_first_line_gives_the_papers_cost(name, figure):
    assert paper_figure(ROOT / f'configs/sparsedit/{name}.py') == figure
