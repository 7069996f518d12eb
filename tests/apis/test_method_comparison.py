"""Comparing methods: what is measured once, what a table says, which rows are best."""

import copy
import shutil

import pytest
import torch
from mmengine.evaluator import BaseMetric

from mmsparsedit.apis.launch import ConfigError
from mmsparsedit.apis.method_comparison import (
    Comparison,
    Row,
    Setting,
    best_at,
    comparison_table,
    on_front,
    read_rows,
    summary,
)
from mmsparsedit.apis.runs import Run
from mmsparsedit.models.acceleration import Acceleration
from mmsparsedit.registry import METRICS, MODELS

from accelerated import NETWORKS
from runs import ROOT

BENCHMARKS = ROOT / 'configs/benchmarks'


@METRICS.register_module(force=True)
class Brightness(BaseMetric):
    """Mean pixel, which any sample has."""

    default_prefix = 'mean'

    def process(self, data_batch, data_samples):
        self.results += [sample['image'].float().mean().item() for sample in data_samples]

    def compute_metrics(self, results):
        return dict(pixel=sum(results) / len(results), counted=len(results))


@pytest.fixture
def runs(tmp_path):
    network = dict(NETWORKS['dit'], hidden_size=16, num_bottom=0, num_sdtm=0, num_top=2)
    config = dict(
        default_scope='mmsparsedit',
        model=dict(
            type='DiffusionGenerator',
            network=network,
            diffusion=dict(type='GaussianDiffusion'),
            sampler=dict(type='DDIMSampler', num_steps=4),
            cfg_scale=2.0,
        ),
        val_dataloader=dict(dataset=dict(type='SampleRequests', num_samples=9, num_classes=10)),
        val_evaluator=dict(type='Brightness'),
    )
    path = tmp_path / 'tiny.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in config.items()))

    checkpoint = tmp_path / 'tiny.pth'
    generator = MODELS.build(config['model'])
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.save(dict(state_dict=generator.state_dict()), checkpoint)
    return dict(dense=[Run('tiny', str(path), str(checkpoint))])


ROWS = [
    Row('plain', 'dense'),
    Row('fewer', 'dense', {'model.sampler.num_steps': 2}),
    Row(
        'first block',
        'dense',
        {'model.acceleration.method': dict(type='FirstBlockCache', threshold=9.0)},
    ),
]
SETTING = Setting(num_samples=4, seeds=(0, 5), batch_size=2, timed_batch=2, rounds=2)


def test_a_seed_that_comes_later_is_added(runs, tmp_path):
    """And none that was measured may go, or be another."""
    setting, saved, found = Setting(num_samples=2, seeds=(0,), batch_size=2), [], {}
    Comparison(ROWS[:1], runs, setting, found).measure_quality()
    [first] = runs['dense']
    shutil.copy(first.checkpoint, tmp_path / 'second.pth')
    second = Run('tiny', first.config, str(tmp_path / 'second.pth'))
    more = dict(dense=[first, second])
    assert Comparison(ROWS[:1], more, setting, found, lambda: saved.append(1)).measure_quality()
    assert len(saved) == 1 and len(found['rows']['plain']['quality']) == 2
    for other in ([first], [second, first]):
        with pytest.raises(ConfigError, match='give the same, or another file'):
            Comparison(ROWS[:1], dict(dense=other), setting, found)


def test_what_was_measured_is_not_measured_again(runs):
    found, saved, budget = {}, [], 4
    comparison = Comparison(
        ROWS, runs, SETTING, found, lambda: saved.append(1), lambda: len(saved) >= budget
    )
    assert not comparison.measure_quality() and len(saved) == 4
    assert [len(row['quality']) for row in found['rows'].values()] == [2, 1, 1]
    first = copy.deepcopy(found)
    # a new command, as after a kill
    comparison = Comparison(ROWS, runs, SETTING, found, lambda: saved.append(1))
    assert comparison.measure_quality() and len(saved) == 6
    assert comparison.measure_speed() and len(saved) == 6 + 2 * len(ROWS)
    assert comparison.measure_speed() and len(saved) == 6 + 2 * len(ROWS)
    for title, row in first['rows'].items():
        assert found['rows'][title]['quality'][: len(row['quality'])] == row['quality']
    plain, fewer, block = (row['quality'][0] for row in found['rows'].values())
    assert (plain['calls'], plain['evaluations'], plain['spared']) == (4, 8, 0)
    assert fewer['gmacs_per_sample'] == plain['gmacs_per_sample'] / 2
    assert block['spared'] == 3 and block['metrics']['mean/counted'] == 4
    assert found['rows']['plain']['quality'][1]['seed'] == 5
    assert all(len(pair) == 2 for row in found['rows'].values() for pair in row['rounds'])
    assert comparison_table(found, ['mean/pixel'])[2].startswith('| plain | dense | 8 | 0.0 |')

    with pytest.raises(ConfigError, match='give the same, or another file'):
        Comparison(ROWS, runs, Setting(num_samples=5), found)
    changed = [ROWS[0], Row('fewer', 'dense', {'model.sampler.num_steps': 3})]
    with pytest.raises(ConfigError, match="row 'fewer' was measured with"):
        Comparison(changed, runs, SETTING, found)
    with pytest.raises(ConfigError, match=r"has \['sparse'\] rows: name their work dirs"):
        Comparison([Row('a', 'sparse')], runs, SETTING, {})


def measured(title, quality, gmacs, seconds):
    quality = [dict(metrics=dict(d=q), gmacs_per_sample=gmacs, calls=4, spared=0, evaluations=8)
               for q in quality]  # fmt: skip
    return {title: dict(model='dense', quality=quality, rounds=[[s, 8.0] for s in seconds])}


def test_means_ratios_and_the_front():
    rows = {
        **measured('a', [2.0, 4.0], 8, [8, 8, 8]),
        **measured('b', [3.5], 4, [4, 4, 2]),
        **measured('c', [9.0], 3, [5, 5, 5]),
        **measured('d', [4.0], 2, [1, 1, 1]),
    }
    a, b, c, d = summary(dict(rows=rows, setting=dict(timed_batch=2)), 'd')
    assert a['quality'] == 3 and a['quality_spread'] == pytest.approx(2**0.5)
    assert (b['ratio']['median'], b['ratio']['q3']) == (2, 3) and b['speed']['median'] == 0.5
    assert on_front([a, b, c, d], lambda row: -row['ratio']['median']) == [d, b, a]
    assert on_front([a, b, c, d], lambda row: row['gmacs_per_sample']) == [d, b, a]
    assert best_at([a, b, c, d], (1, 2, 3, 9)) == {1: a, 2: b, 3: d, 9: None}
    with pytest.raises(ConfigError, match=r"metric 'e' is not among \['d'\]"):
        summary(dict(rows=rows, setting=dict(timed_batch=2)), 'e')


TABLES = ['methods.yml', 'methods_mnist28.yml']


@pytest.mark.parametrize('table', TABLES)
def test_rows_of_a_table(table):
    rows = read_rows(BENCHMARKS / table)
    assert rows[0] == Row('dense', 'dense') and {row.model for row in rows} == {'dense', 'sparse'}


def test_rows_of_a_wrong_table(tmp_path):
    path = tmp_path / 'rows.yml'
    for text, message in (
        ('- {title: a, model: middling}', 'model must be one of'),
        ('- {title: a, model: dense, steps: 3}', "unexpected keyword argument 'steps'"),
        ('- {title: a, model: dense}\n- {title: a, model: sparse}', 'a title of its own'),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_rows(path)


@pytest.mark.parametrize('table', TABLES)
def test_rows_name_keys_of_the_configs(table):
    """Networks and processes of the rows are those of the configs; what they change is built."""
    for row in read_rows(BENCHMARKS / table):
        for option in row.options:
            head, key, *_ = option.split('.')
            assert head == 'model' and key in ('acceleration', 'sampler', 'cfg_interval'), row
        acceleration = {
            option.rpartition('.')[2]: value
            for option, value in row.options.items()
            if 'acceleration' in option
        }
        Acceleration(**acceleration)
