"""The planner: its search against trying everything, its costs against the counter."""

import itertools
import json
import runpy
from types import SimpleNamespace

import pytest
import torch

from mmsparsedit.apis import planning
from mmsparsedit.apis.planning.plan import plan_structure, planned_config
from mmsparsedit.apis.planning.search import search
from mmsparsedit.apis.planning.sensitivity import Probe, Sensitivity
from mmsparsedit.apis.planning.structure import Layout, Structure, grids_of
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.registry import MODELS

from runs import DENSE, ROOT

GRIDS = [(4, 4), (2, 2)]


def sensitivity(depth=9):
    """Made-up distances, all different, and costs that add up."""
    layout = Layout(depth, video=False)
    random = torch.Generator().manual_seed(0)

    def draw():
        return torch.rand(2, generator=random).tolist()

    found = Sensitivity(layout, GRIDS, dense_macs=100)
    found.pooled = {0: [0.0, 0.0], 1: draw(), 2: draw()}
    found.pooled_macs = {0: 0, 1: -3, 2: -6}
    for sparse in (1, 2):
        found.module_macs[sparse] = {GRIDS[0]: -5 * sparse, GRIDS[1]: -8 * sparse}
        for start in range(depth - layout.length(sparse) + 1):
            found.modules[start, sparse] = {grid: draw() for grid in GRIDS}
    return found


def every_structure(found):
    depth, layout = found.layout.depth, found.layout
    for pooled in found.pooled:
        for count in range(1, depth // 3 + 1):
            for chosen in itertools.combinations(sorted(found.modules), count):
                ends = [start + layout.length(sparse) for start, sparse in chosen]
                begins = [start for start, _ in chosen]
                apart = all(e <= b for e, b in zip(ends[:-1], begins[1:], strict=True))
                if begins[0] == pooled and apart:
                    yield Structure(layout, pooled, chosen)


@pytest.mark.parametrize('budget', [95, 80, 72])
def test_the_search_finds_what_trying_everything_does(budget):
    found, weights = sensitivity(), [0.25, 0.75]
    least = float('inf')
    for structure in every_structure(found):
        for grids in (GRIDS[:1] * 2, GRIDS, GRIDS[1:] * 2):  # never more tokens in noise
            macs, distance = found.dense_macs + found.pooled_macs[structure.pooled], 0.0
            for k, grid in enumerate(grids):
                distance += weights[k] * found.pooled[structure.pooled][k]
                for start, sparse in structure.modules:
                    macs += weights[k] * found.module_macs[sparse][grid]
                    distance += weights[k] * found.modules[start, sparse][grid][k]
            if macs <= budget:
                least = min(least, distance)
    best = search(found, weights, budget)[0]
    assert best.predicted == pytest.approx(least) and best.macs <= budget


def test_a_budget_out_of_reach_names_the_cheapest():
    with pytest.raises(ValueError, match=r'budget of 0.100 .* cheapest .* has 0\.'):
        search(sensitivity(), [0.5, 0.5], 10)


def test_structures_become_networks():
    image = Structure(Layout(9, video=False), 1, ((1, 1), (5, 2)))
    assert image.options() == dict(
        num_bottom=1, num_sdtm=2, num_top=0,
        sdtm=[dict(type='SDTM', block_counts=c) for c in ((1, 1, 1, 1), (1, 2, 1, 0))],
    )  # fmt: skip
    alike = Structure(Layout(10, video=True), 2, ((2, 0), (6, 0))).options()
    assert alike['sdtm'] == dict(type='FactorisedSDTM', num_sparse=0) and alike['num_top'] == 0
    assert grids_of((4, 4, 4)) == [(2, 3, 3), (2, 2, 2), (2, 1, 1)]
    with pytest.raises(ValueError, match='lists 2 modules, num_sdtm is 1'):
        MODELS.build(dict(TINY['SparseDiT'], num_bottom=1, num_sdtm=1, num_top=0,
                          sdtm=image.options()['sdtm']))  # fmt: skip


def test_an_untrained_model_is_refused():
    network = MODELS.build(TINY['SparseDiT'])
    with pytest.raises(ValueError, match='output is zero'):
        Probe(network, [], [network.example_inputs()], 1)


SHAPE = dict(input_size=8, hidden_size=16, num_heads=2, num_bottom=0, num_sdtm=0)
TINY = {
    'SparseDiT': dict(type='SparseDiT', **SHAPE, num_classes=5, num_top=5),
    'SparsePixArt': dict(
        type='SparsePixArt', **SHAPE, caption_channels=8, model_max_length=4, num_top=4
    ),
    'SparseLatte': dict(type='SparseLatte', **SHAPE, num_frames=4, num_classes=None, num_top=8),
}
BUDGET = {'SparseDiT': 0.75, 'SparsePixArt': 0.8, 'SparseLatte': 0.8}


@pytest.mark.slow(15)
@pytest.mark.parametrize('kind', TINY)
def test_a_plan_is_within_its_budget_and_its_config_builds(kind, tmp_path, monkeypatch):
    from mmengine.config import Config

    torch.manual_seed(0)
    network = MODELS.build(TINY[kind])
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    video, text = kind == 'SparseLatte', kind == 'SparsePixArt'
    base = tmp_path / 'dense.py'
    base.write_text(f"""
model = dict(
    type='{'TextToImageGenerator' if text else 'DiffusionGenerator'}',
    network={TINY[kind]!r},
    diffusion=dict(type='GaussianDiffusion', channel_dim={2 if video else 1}),
    sampler=dict(type='DDIMSampler', num_steps=8),
    {"text_encoder=dict(type='HashTextEncoder', channels=8, max_length=4)," if text else ''}
)
""")
    shape = (2, 4, 4, 8, 8) if video else (2, 4, 8, 8)

    def batches(generator, config, count, *rest):
        for _ in range(count):
            batch = dict(inputs=torch.randn(shape))
            if text:
                batch['prompt'] = ['a small two', 'a five']
            elif not video:
                batch['label'] = torch.tensor([1, 2])
            yield batch

    monkeypatch.setattr('mmsparsedit.apis.planning.plan.training_batches', batches)
    monkeypatch.setattr('mmsparsedit.apis.planning.structure.KEPT', (1 / 2, 1 / 4))
    found = plan_structure(
        Config.fromfile(base), network.state_dict(), BUDGET[kind], most_pooled=2 if video else 1,
        most_sparse=0 if video else 1, fit_batches=1,
        finalists=2 if kind == 'SparseDiT' else 1,
    )  # fmt: skip
    distances = [judged.distance for judged in found.judged]
    assert distances == sorted(distances) and distances[0] > 0 and found.own is None
    for judged in found.judged:
        assert 0.3 < judged.share <= BUDGET[kind]
    text = planned_config(
        base, tmp_path / 'planned.py', Config.fromfile(base), found.judged[0], 'd.pth', 0.75
    )
    (tmp_path / 'planned.py').write_text(text)
    config = Config.fromfile(tmp_path / 'planned.py')
    with torch.device('meta'):
        generator = MODELS.build(config.model)
    assert generator.network.depth == network.depth and config.load_from == 'd.pth'
    grids = [stage.grid for stage in generator.prune.stages]
    assert [list(grid) for grid in grids] == [list(g) for g in found.judged[0].prune['grids']]
    sample_macs = [count_macs(generator.network, grid).total for grid in grids]
    assert min(sample_macs) <= found.judged[0].share * count_macs(network).total
    config.model.prune.per_rank = False  # how stages are drawn stays
    again = planned_config(base, tmp_path / 'again.py', config, found.judged[0], 'd.pth', 0.75)
    assert '        _delete_=True,' in again and '        per_rank=False,' in again


def test_a_plan_is_written_whole_into_a_new_folder(tmp_path, monkeypatch):
    """The search takes minutes: that nobody made the folder must not cost it."""
    judged = SimpleNamespace(shown='a plan', share=0.6, distance=0.1, predicted=0.2, prune={})
    found = SimpleNamespace(
        judged=[judged], own=None, sensitivity=SimpleNamespace(figures=lambda: dict(layers=8))
    )
    monkeypatch.setattr(planning, 'plan_structure', lambda *args, **kwargs: found)
    monkeypatch.setattr(planning, 'planned_config', lambda *args: '# a config\n')
    tool = runpy.run_path(str(ROOT / 'tools/analysis_tools/plan_structure.py'))
    out = tmp_path / 'new' / 'planned.py'
    tool['main'](tool['parse_args']([DENSE, 'none.pth', '--budget', '0.6', '--out', str(out)]))
    assert out.read_text() == '# a config\n'
    assert json.loads(out.with_suffix('.json').read_text())['layers'] == 8
    assert sorted(path.name for path in out.parent.iterdir()) == ['planned.json', 'planned.py']
