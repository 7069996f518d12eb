"""The benchmark: what it counts, in what order it measures, what it refuses. Never the clock."""

import json
import runpy
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmsparsedit.apis import benchmark_report
from mmsparsedit.apis.attention_kernels import run_attention, written_out_attention
from mmsparsedit.apis.benchmark import (
    Case,
    Side,
    _fitting_batch,
    benchmark,
    build_generator,
    iteration_at,
    random_request,
    read_cases,
    read_model,
    timestep_at,
    training_work,
)
from mmsparsedit.apis.clock import matrix_rate, spread
from mmsparsedit.apis.cost import cost_report
from mmsparsedit.apis.launch import ConfigError
from mmsparsedit.models.acceleration import Acceleration
from mmsparsedit.models.cost import Call, call_macs, macs_by_grid, trajectory_calls
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.registry import MODELS

from runs import DENSE, ROOT, SPARSE, run_tool

TABLES = ROOT / 'configs' / 'benchmarks'
TINY = dict(hidden_size=16, num_heads=2)
SHRINK = {f'model.network.{key}': value for key, value in TINY.items()}
case = partial(Case, 'a row', SPARSE, rounds=1, steps_per_stage=1)


COUNTED = {}


def counted_once(generator):
    key = repr((generator.network, generator.data_shape, vars(generator.prune or object)))
    if key not in COUNTED:
        COUNTED[key] = macs_by_grid(generator)
    return COUNTED[key]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody looks at the clock here."""
    monkeypatch.setattr('mmsparsedit.apis.benchmark.matrix_rate', lambda device, dtype: 1e9)
    monkeypatch.setattr('mmsparsedit.models.cost.macs_by_grid', counted_once)


def model(path=SPARSE, **overrides):
    config = Config.fromfile(str(ROOT / path)).model.to_dict()
    config['network'].update(TINY)
    config['sampler']['num_steps'] = 10
    return {**config, **overrides}


def run(**fields):
    """A case of the tiny models."""
    return benchmark(case(**{'batch': [1], **fields}), lambda path, options: model(path))


def generator(**overrides):
    return MODELS.build(model(**overrides))


# -- what a trajectory costs ----------------------------------------------------------------------


def test_a_trajectory_costs_the_sum_of_its_calls():
    built = generator(cfg_interval=(200, 700))
    calls = trajectory_calls(built)
    assert [c.grid for c in calls] == [
        built.prune.grid_at(t) for t in built.sampler.timesteps(built.diffusion)
    ]
    assert [c.guided for c in calls] == [200 <= t < 700 for t in range(900, -1, -100)]
    macs = call_macs(built, calls, macs_by_grid(built))
    counted = {grid: count_macs(built.network, grid).total for grid in {c.grid for c in calls}}
    expected = sum(counted[c.grid] * (2 if c.guided else 1) for c in calls)
    assert sum(macs[c] for c in calls) == expected
    report = cost_report(model(cfg_interval=(200, 700)))['sampler']
    assert report['nfe'] == 15 and report['reused'] == 0
    assert report['gmacs_per_sample'] == pytest.approx(expected / 1e9, rel=1e-12)


def test_a_cached_call_costs_bottom_and_top():
    built = generator(acceleration=dict(cache_interval=2))
    calls = trajectory_calls(built)
    assert any(c.reused for c in calls) and not calls[0].reused
    macs = call_macs(built, calls, macs_by_grid(built))
    outer = {**model()['network'], 'num_sdtm': 0}
    expected = count_macs(MODELS.build(outer)).total
    assert {macs[c] for c in calls if c.reused} == {2 * expected}
    assert cost_report(model(acceleration=dict(cache_interval=2)))['sampler']['reused'] == sum(
        c.reused for c in calls
    )


def test_training_weighs_stages_by_their_share():
    work = training_work(generator())
    assert {c.grid: share for c, share in work.items()} == pytest.approx(
        {(6, 6): 0.25, (5, 5): 0.5, (4, 4): 0.25}  # two stages share a grid
    )
    flow = model('configs/sparsedit/digits_rflow.py')
    flow['diffusion'].update(time_distribution='logit_normal')
    shares = list(training_work(MODELS.build(flow)).values())
    assert sum(shares) == pytest.approx(1) and shares[0] < 0.25
    assert training_work(MODELS.build(model(DENSE))) == {Call(None, False, False): 1.0}


def test_the_stage_that_is_timed_is_the_one_that_is_counted():
    built = generator(cfg_interval=(200, 700))
    for call in set(trajectory_calls(built)):
        t = timestep_at(built, call)
        assert built.prune.grid_at(t) == call.grid
        assert built.guidance.active_at(t) == call.guided
    for stage in built.prune.stages:
        assert built.training_grid(0, iteration_at(built, stage.grid)) == stage.grid


def test_speed_is_weighted_by_visits(monkeypatch):
    """With a clock that counts network evaluations, a trajectory takes its NFE."""
    side = Side('digits', model(cfg_interval=(200, 700)), case(steps_per_stage=3))
    side.prepare(2)
    evaluations = []
    network = side.generator.network
    network.register_forward_hook(lambda m, args, out: evaluations.append(len(args[0])))

    def counted(function, device, times=1):
        evaluations.clear()
        for _ in range(times):
            function()
        return sum(evaluations) / 2 / times  # per sample

    monkeypatch.setattr('mmsparsedit.apis.benchmark.timed', counted)
    assert side.measure()['seconds'] == pytest.approx(side.nfe) == 15
    whole = Side('digits', model(cfg_interval=(200, 700)), case(steps_per_stage=None))
    whole.prepare(2)
    whole.generator.network.register_forward_hook(
        lambda m, args, out: evaluations.append(len(args[0]))
    )
    assert whole.measure()['seconds'] == 15


def test_training_steps_update_weights_and_average():
    side = Side('digits', model(), case(mode='train'))
    before = {k: p.detach().clone() for k, p in side.generator.named_parameters()}
    side.prepare(2)
    side.measure()
    assert all(not torch.equal(p, before[k]) for k, p in side.generator.named_parameters())
    averages = side._average.avg_parameters
    assert all(not torch.equal(p, before[k]) for k, p in averages.items())
    assert side.macs_per_sample == pytest.approx(
        3 * sum(share * side.macs[call] for call, share in side.work.items())
    )


# -- how it is measured ---------------------------------------------------------------------------


def test_sides_run_in_turn(monkeypatch):
    order = []
    measure = Side.measure
    monkeypatch.setattr(Side, 'measure', lambda s: (order.append(s.name), measure(s))[1])
    report = run(baseline=DENSE, rounds=3, batch=[2])
    assert order == ['digits', 'dit_digits'] * 3
    a, b = report['sides']
    ratio = report['speedup']
    assert ratio['macs_ratio'] == pytest.approx(b['gmacs_per_sample'] / a['gmacs_per_sample'])
    assert ratio['min'] <= ratio['q1'] <= ratio['median'] <= ratio['q3'] <= ratio['max']
    for side in report['sides']:
        speed = side['samples_per_second']['median']
        assert side['tmacs_per_second'] == pytest.approx(side['gmacs_per_sample'] * speed / 1e3)
        assert side['share_of_matrix_rate'] == pytest.approx(
            side['tmacs_per_second'] / report['matrix_tmacs_per_second']
        )
        assert side['nfe'] == 20
        assert sum(s['weight'] for s in side['stages']) == 10
    json.dumps(report)


def test_memory_holds_weights_and_what_grows_with_the_batch():
    config = model()
    peaks = []
    for batch in (1, 2, 3):
        side = Side('a', config, case())
        side.prepare(batch)
        peaks.append(side.peak)
    weights = sum(p.nbytes for p in side.generator.parameters())
    one = peaks[1] - peaks[0]
    assert weights < peaks[0] and one > 0
    assert peaks[2] - peaks[1] == pytest.approx(one, rel=0.02)
    # gradients, two moments and the average beside the weights
    training = Side('a', config, case(mode='train'))
    training.prepare(2)
    first = training.peak
    assert first > 5 * weights
    training.release()  # a batch that did not fit leaves nothing that would not be counted again
    training.prepare(2)
    assert training.peak == pytest.approx(first, rel=0.01)


def test_the_largest_batch_that_fits_both_is_taken(monkeypatch):
    sides = [Side(name, model(), case()) for name in 'ab']
    tried = []

    def limited(error, side):
        tried.append((side.name, side.batch))
        if side.name == 'b' and side.batch > 3:
            raise error

    for error in (
        torch.cuda.OutOfMemoryError('CUDA out of memory'),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        monkeypatch.setattr(Side, '_warm_up', lambda side, error=error: limited(error, side))
        tried.clear()
        assert _fitting_batch(sides, [8, 4, 2, 1]) == 2
        assert tried == [('a', 8), ('b', 8), ('a', 4), ('b', 4), ('a', 2), ('b', 2)]
        assert sides[0].batch == sides[1].batch == 2
        with pytest.raises(MemoryError, match=r'no batch of \[8, 4\] fits on cpu for a and b'):
            _fitting_batch(sides, [8, 4])
    assert _fitting_batch(sides, 7) == 3, 'a number stands for its halves too'
    another = RuntimeError('another')
    monkeypatch.setattr(Side, '_warm_up', lambda side: limited(another, side))
    with pytest.raises(RuntimeError, match='another'):
        _fitting_batch(sides, [8])


def test_unfused_attention_keeps_the_numbers_and_drops_the_kernel():
    seen = [run(attention=a)['sides'][0]['attention_kernel'] for a in ('fused', 'unfused')]
    assert seen[1] == 'written out' != seen[0]


def test_written_out_attention_takes_the_types_that_autocast_mixes():
    q, k = (torch.randn(1, 2, 3, 4, dtype=torch.bfloat16) for _ in range(2))
    v = torch.randn(1, 2, 3, 4)  # PixArt's values, multiplied by a float32 mask
    with torch.autocast('cpu', torch.bfloat16):
        out = written_out_attention(q, k, v)
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('dtype,within', [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_written_out_attention_is_attention(dtype, within):
    fused = torch.nn.functional.scaled_dot_product_attention
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=draw).to(dtype) for n in (5, 7, 7))
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    with run_attention('unfused'):
        replaced = torch.nn.functional.scaled_dot_product_attention
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = replaced(q, k, v), replaced(q, k, v, attn_mask=mask)
    assert torch.nn.functional.scaled_dot_product_attention is fused is not replaced
    for out, expected in zip(found, (fused(q, k, v), fused(q, k, v, attn_mask=mask)), strict=True):
        assert out.dtype == dtype
        torch.testing.assert_close(out, expected, rtol=within, atol=within)


@pytest.mark.parametrize(
    'path', [SPARSE, 'configs/sparselatte/moving_digits.py',
             'configs/sparsepixart/captioned_digits.py']
)  # fmt: skip
def test_every_kind_of_model_has_random_inputs_and_weights(path):
    config = model(path)
    built = build_generator(config, case(mode='train'))
    assert built.autoencoder is None and all(p.abs().sum() > 0 for p in built.parameters())
    request = random_request(built, 2)
    data = torch.randn(2, *built.data_shape)
    assert torch.isfinite(built(inputs=data, mode='loss', **request)['loss'])
    assert built.eval().sample([0, 1], **request).shape == data.shape


def test_a_dense_baseline_has_no_cache():
    setting = case(steps_per_stage=None, acceleration=dict(cache_interval=2), dtype='bf16')
    sparse, dense = build_generator(model(), setting), build_generator(model(DENSE), setting)
    assert sparse.acceleration.options['cache_interval'] == 2
    assert dense.acceleration.options['cache_interval'] == 1
    assert sparse.acceleration.options['dtype'] == dense.acceleration.options['dtype'] == 'bfloat16'


def test_a_lever_is_measured_against_the_same_model_without_it():
    report = run(steps_per_stage=None, baseline='plain', acceleration=dict(cache_interval=2))
    cached, plain = report['sides']
    assert cached['acceleration']['cache_interval'] == 2
    assert plain['acceleration']['cache_interval'] == 1
    assert sum(s['weight'] for s in cached['stages'] if s['reused']) > 0
    ratio = plain['gmacs_per_sample'] / cached['gmacs_per_sample']
    assert report['speedup']['macs_ratio'] == pytest.approx(ratio) and ratio > 1


def test_spread_and_matrix_rate():
    assert spread([4.0]) == dict(median=4, min=4, q1=4, q3=4, max=4)
    assert spread([1, 2, 3, 4, 5]) == dict(median=3, min=1, q1=2, q3=4, max=5)
    assert matrix_rate('cpu', torch.float32, size=64) > 0


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(mode='both'), "mode must be one of .*got 'both'"),
        (dict(dtype='fp16'), "dtype must be one of .*got 'fp16'"),
        (dict(rounds=0), 'rounds 0'),
        (dict(attention='unfused', acceleration=dict(compile=True)), 'without compile'),
        (dict(mode='train', acceleration=dict(cuda_graphs=True)), 'serves sampling only'),
        (dict(steps_per_stage=1, acceleration=dict(cache_interval=2)), 'whole trajectories'),
    ],
)
def test_settings_that_measure_nothing_sensible_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Case('', SPARSE, **options)


def test_a_table_of_ones_own_cases(tmp_path):
    """Another method is a case: keys of its config, which the baseline does not have."""
    table = tmp_path / 'mine.yml'
    table.write_text(
        '- {title: fewer steps, config: sparsedit/digits, baseline: plain, batch: [1], rounds: 1,\n'
        '   acceleration: {cache_interval: 2}, options: {model.sampler.num_steps: 2}}\n'
        f'- {{title: the same config, config: {SPARSE}, baseline: {SPARSE}, rounds: 1}}\n'
    )
    fewer, same = read_cases(str(table), TABLES)
    read = partial(read_model, ROOT / 'configs', SHRINK, (None, 4, 1.0))
    report = benchmark(fewer, read)
    assert [(side['name'], side['nfe']) for side in report['sides']] == [
        ('digits', 2), ('digits plain', 4)
    ]  # fmt: skip
    assert [s['acceleration']['cache_interval'] for s in report['sides']] == [2, 1]
    assert report['setting']['title'] == 'fewer steps' and report['setting']['acceleration']
    report = benchmark(replace(same, batch=[1]), read)
    assert [side['name'] for side in report['sides']] == ['digits', 'digits (baseline)']
    with pytest.raises(ConfigError, match="no table of cases 'none'.* paper, sweep"):
        read_cases('none', TABLES)
    table.write_text('- {title: a, config: b, steps: 3}')
    with pytest.raises(ConfigError, match="case 1: .*unexpected keyword argument 'steps'"):
        read_cases(str(table), TABLES)


# -- the command ----------------------------------------------------------------------------------


def test_the_command_prints_what_it_measured_and_on_what(tmp_path):
    done = run_tool(
        'tools/analysis_tools/benchmark.py', SPARSE, '--baseline', DENSE, '--device', 'cpu',
        '--batch-size', 2, '--rounds', 2, '--num-steps', 4, '--cfg-scale', 3, '--dtype', 'bf16',
        '--cache-interval', 2, '--profile',
        '--json', tmp_path / 'b.json', '--plot', tmp_path / 'b.png',
        '--cfg-options', 'model.network.hidden_size=16', 'model.network.num_heads=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'b.json').read_text())
    assert report['setting']['dtype'] == 'bf16' and report['batch'] == 2
    assert report['sides'][0]['guidance']['scale'] == 3 and report['sides'][0]['nfe'] == 8
    assert report['setting']['acceleration'] == dict(cache_interval=2)
    assert [s['acceleration']['cache_interval'] for s in report['sides']] == [2, 1]
    for said in (
        torch.__version__,
        'bf16',
        'batch 2',
        'guidance 3',
        'matrix rate',
        'digits, where the time goes: ',
        'cache_interval 2',
        'on the clock',
    ):
        assert said in done.stdout
    assert (tmp_path / 'b.png').stat().st_size > 1000


@pytest.mark.parametrize(
    'arguments,message',
    [
        ([], 'give a CONFIG, or --preset paper, or --sweep'),
        ([SPARSE, '--sweep'], 'give a CONFIG, or --preset paper, or --sweep'),
        (['--sweep', '--baseline', DENSE], '--baseline goes with a CONFIG'),
        ([SPARSE, '--fp8'], 'fp8 needs dtype bfloat16'),
    ],
)
def test_what_the_command_refuses(arguments, message):
    done = run_tool('tools/analysis_tools/benchmark.py', *arguments)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr


def test_the_preset_for_a_cpu_compares_one_option_with_its_default():
    for case in read_cases('cpu', TABLES):
        assert (ROOT / 'configs' / f'{case.config}.py').is_file() and case.baseline == 'plain'
        options = Acceleration(**case.acceleration).options
        left_out = Acceleration(**case.acceleration_of_plain).options
        assert {k for k in options if options[k] != left_out[k]} == {'gelu_epilogue'}


@pytest.mark.parametrize('name', ['paper', 'sweep'])
def test_presets_name_configs_and_figures_of_the_paper(name, tmp_path):
    reports = []
    for i, row in enumerate(read_cases(name, TABLES)):
        for path in (row.config, row.baseline):
            line = open(ROOT / 'configs' / f'{path}.py').readline()
            table = dict(sparsedit=1, sparselatte=2, sparsepixart=3)[path.split('/')[0]]
            assert name == 'sweep' or f'Table {table}' in line
        sides = [
            dict(samples_per_second=dict(median=speed, q1=speed, q3=speed), peak_memory_gib=i + 1.0)
            for speed in (2.0, 1.0)
        ]
        ratio = dict(median=2.0, q1=1.9, q3=2.2, macs_ratio=1.75)
        reports.append(
            dict(batch=8, setting=asdict(row), sides=sides, speedup=ratio, device='a device')
        )
    table = benchmark_report.format_rows(reports).splitlines()
    assert len(table) == len(reports) + 1
    if name == 'paper':
        ratios = [line.split()[-1] for line in table[1:]]
        assert ratios == ['1.68', '1.35', '1.87', '2.45', '2.75', '2.11', '1.69']
    benchmark_report.plot(reports, tmp_path / 'rows.png')
    picture = Image.open(tmp_path / 'rows.png').convert('RGB')
    colours = {colour for _, colour in picture.getcolors(2**24)}
    assert {(0, 114, 178), (122, 122, 122)} < colours, 'model and baseline differ'


@pytest.mark.slow(15)
def test_the_report_of_a_gpu_is_rehearsed(tmp_path, monkeypatch, capsys):
    """Every case on digits: a row that failed is tried again, the others are kept."""
    tool = runpy.run_path(str(ROOT / 'tools/analysis_tools/gpu_report.py'))
    document, rows = tmp_path / 'performance.md', tmp_path / 'gpu.json'
    document.write_text('before\n<!-- gpu:begin -->\n<!-- gpu:end -->\nafter\n')
    cases = read_cases('gpu', TABLES)
    titles = [row.title for row in cases]
    compared = [row.title for row in cases if row.mode == 'deviation']

    def report(*options):
        command = ['', '--json', rows, '--rehearse', *options]
        monkeypatch.setattr('sys.argv', list(map(str, command)))
        tool['main'](tool['parse_args']())
        return json.loads(rows.read_text())

    rows.write_text(json.dumps({titles[0]: dict(error='torn'), titles[1]: dict(sides=[])}))
    assert len(report('--minutes', -1)) == 2
    assert capsys.readouterr().out.count('no time left') == len(titles) - 1
    rows.write_text(json.dumps({titles[0]: dict(error='torn')}))
    found = report('--document', document)
    assert list(found) == titles
    assert [title for title in titles if 'speedup' not in found[title]] == compared
    for title in compared:  # on a CPU there is no TF32, and bf16 rounds to 2 ** -9
        tf32, bf16, stream, gelu, fp8 = found[title]['deviations'].values()
        assert tf32 == [0.0] * 4 and all(1e-5 < value < 5e-2 for value in (*bf16, *stream))
        assert 'needs a CUDA' in gelu and 'needs a CUDA' in fp8
    assert [row['setting']['mode'] for row in found.values()].count('train') == 2
    told = document.read_text()
    assert told.startswith('before\n') and told.endswith('after\n') and 'torn' not in told
    assert all(f'| {title} | 1 |' in told for title in titles if title not in compared)
    assert all(f'| {title} | 0 %, 0 %, 0 %, 0 % | ' in told for title in compared)
    assert f'| {titles[0]}: dit_digits |' in told
    del found[titles[-1]]
    rows.write_text(json.dumps(found))
    monkeypatch.setattr('mmsparsedit.apis.benchmark._fitting_batch', lambda *_: 1 / 0)
    assert report('--document', document)[titles[-1]] == dict(
        error='ZeroDivisionError: division by zero'
    )
    assert f'* {titles[-1]}: ZeroDivisionError' in document.read_text()
