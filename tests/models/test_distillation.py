"""A dense teacher, and merges fitted to it: exact where the sparse model can be the dense one."""

import copy

import pytest
import torch
from torch import nn

from mmsparsedit.models import calibration_batches, fit_merges, fit_start, load_pretrained
from mmsparsedit.models.distillation import Distillation, dense_entries, load_teacher
from mmsparsedit.registry import MODELS

from runs import train

SHAPE = dict(hidden_size=24, num_heads=2, num_sdtm=2, reinject_pos_embed=False)
NETWORKS = {
    'SparseDiT': dict(SHAPE, input_size=8, num_classes=5, num_bottom=0, num_top=2),
    'SparseLatte': dict(
        SHAPE, input_size=8, num_frames=4, num_classes=5, num_bottom=2, num_top=2,
        recover_order='spatial_first',
    ),
    'SparsePixArt': dict(
        SHAPE, input_size=8, caption_channels=8, model_max_length=4, num_bottom=0, num_top=1
    ),
}  # fmt: skip
GRIDS = {'SparseDiT': (4, 4), 'SparseLatte': (4, 4, 4), 'SparsePixArt': (4, 4)}


def build(kind, **changed):
    """A sparse network, its teacher, and inputs: the one is the other where no token is pruned.

    Bottom layers pass tokens on, other weights are random, merges give the sparse tokens.
    """
    torch.manual_seed(0)
    config = dict(type=kind, **{**NETWORKS[kind], **changed})
    depth = MODELS.build(config).depth
    dense = MODELS.build(dict(config, num_bottom=0, num_sdtm=0, num_top=depth))
    with torch.no_grad():
        for name, p in dense.named_parameters():
            if not name.startswith(('top.0.adaLN', 'top.1.adaLN')) or kind != 'SparseLatte':
                p.add_(0.2 * torch.randn_like(p))
    network = MODELS.build(config)
    load_pretrained(network, dense.state_dict())
    for merge in merges(network):
        merge.merge_sparse.weight.data.fill_(0).fill_diagonal_(1)
        merge.merge_dense.weight.data.zero_()
    teacher = load_teacher(config, depth, dense.state_dict())
    return network, teacher, inputs_of(network)


def merges(network):
    return [module for module in network.modules() if hasattr(module, 'merge_sparse')]


def inputs_of(network, batch=3):
    inputs = network.example_inputs(batch)
    inputs['x'] = torch.randn_like(inputs['x'])
    inputs['t'] = 1000 * torch.rand_like(inputs['t'])
    if inputs['y'].is_floating_point():
        inputs['y'] = torch.randn_like(inputs['y'])
    return inputs


def distilled(network, teacher, inputs, grid, **options):
    term = Distillation({}, teacher='', **options)
    term._teacher = teacher
    x, t = inputs['x'], inputs['t']
    condition = {key: value for key, value in inputs.items() if key not in ('x', 't')}
    channel_dim = x.ndim - 3
    _, terms = term(
        lambda: network(x, t, grid=grid, **condition), network, x, t, condition, channel_dim
    )
    return term, terms


@pytest.mark.parametrize('kind', NETWORKS)
def test_a_sparse_model_that_is_the_dense_one_differs_in_nothing(kind):
    network, teacher, inputs = build(kind)
    _, terms = distilled(network, teacher, inputs, GRIDS[kind])
    assert set(terms) == {'distill_output', 'distill_variance', 'distill_tokens'}
    assert max(value.item() for value in terms.values()) < 1e-9
    network.middle[0].recovery[0].merge_dense.bias.data.normal_()
    _, terms = distilled(network, teacher, inputs, GRIDS[kind])
    assert min(value.item() for value in terms.values()) > 1e-7


@pytest.mark.parametrize('kind', NETWORKS)
def test_fitted_merges_make_the_sparse_model_the_dense_one(kind):
    network, teacher, _ = build(kind)
    for merge in merges(network):
        merge.init_merge()
    batches = [dict(inputs_of(network, 8), grid=GRIDS[kind]) for _ in range(4)]
    batches[0]['t'][:] = 5.0
    report = fit_merges(network, teacher, batches, ridge=1e-12)
    assert len(report) == len(merges(network))
    assert all(row.start > 1e-3 and abs(row.fitted) < 1e-7 for row in report), report
    inputs = inputs_of(network)
    wanted = teacher(**inputs)
    assert (network(**inputs, grid=GRIDS[kind]) - wanted).square().mean() < 1e-6 * wanted.var()


@pytest.mark.parametrize('order', ['temporal_first', 'spatial_first'])
def test_fitted_merges_of_pruned_tokens_are_nearer(order):
    options = dict(reinject_pos_embed=True, recover_order=order)
    network, teacher, inputs = build('SparseLatte', **options)
    for merge in merges(network):
        merge.init_merge()
    grids = [(2, 2, 2), (2, 3, 3)]
    before = [distilled(network, teacher, inputs, grid)[1]['distill_tokens'] for grid in grids]
    report = fit_merges(
        network, teacher, [dict(inputs_of(network, 4), grid=grid) for grid in grids * 4]
    )
    # as they run: with images of a video that is not the order in depth
    first = 'recovery.1' if order == 'temporal_first' else 'recovery.0'
    assert [row.name.endswith(first) for row in report] == [True, False] * 2
    assert all(row.fitted < row.start for row in report)
    for grid, error in zip(grids, before, strict=True):
        assert distilled(network, teacher, inputs, grid)[1]['distill_tokens'] < 0.5 * error


def test_a_start_is_fitted_from_the_bottom_to_the_head():
    network, teacher, inputs = build('SparsePixArt', num_bottom=1, num_top=0)
    for merge in merges(network):
        merge.init_merge()
    batches = [dict(inputs_of(network, 8), grid=(2, 2)) for _ in range(6)]
    before = distilled(network, teacher, inputs, (2, 2))[1]['distill_output']
    wanted = teacher.state_dict()
    report = fit_start(network, teacher, batches)
    names = ['bottom.0', 'middle.0.recovery.0', 'middle.1.recovery.0', 'final_layer']
    assert [row.name for row in report] == names
    assert all(row.fitted < row.start for row in report)
    assert distilled(network, teacher, inputs, (2, 2))[1]['distill_output'] < 0.5 * before
    # the mean of what the dense attention gives, at the fitted batches
    batch = {key: value for key, value in batches[0].items() if key != 'grid'}
    found, meant = [], []
    network.bottom[0].attn.register_forward_hook(lambda *call: found.append(call[2]))
    teacher.top[0].attn.register_forward_hook(lambda *call: meant.append(call[2].mean(1, True)))
    network(**batch), teacher(**batch)
    error = (found[0] - meant[0]).square().sum() / meant[0].square().sum()
    assert error < 2 * report[0].fitted
    assert all(torch.equal(value, wanted[key]) for key, value in teacher.state_dict().items())


def test_tokens_are_compared_behind_recoveries_and_dense_layers():
    network, _, _ = build('SparseDiT', num_bottom=1)
    names = {id(module): name for name, module in network.named_modules()}
    found = {i: names[id(module)] for i, module in dense_entries(network).items()}
    assert found == {  # layer 0 is a PoolingFormer, 1 ... 6 the first SDTM
        6: 'middle.0.dense.0', 7: 'middle.1', 12: 'middle.1.dense.0',
        13: 'top.0', 14: 'top.1', 15: 'final_layer',
    }  # fmt: skip


def test_the_loss_is_the_weighted_sum_and_the_hooks_are_gone():
    network, teacher, inputs = build('SparseDiT')
    term, terms = distilled(
        network, teacher, inputs, (2, 2), data_weight=2.0, output_weight=3.0, variance_weight=0.5
    )
    total = term.total(dict(loss=torch.tensor(1.0), mse=torch.tensor(7.0)), terms)
    expected = 2 + 3 * terms['distill_output'] + 0.5 * terms['distill_variance']
    torch.testing.assert_close(total['loss'], expected + terms['distill_tokens'])
    assert total['mse'] == 7 and sum('loss' in name for name in total) == 1
    total['loss'].backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(m._forward_pre_hooks for net in (network, teacher) for m in net.modules())
    assert copy.deepcopy(term) is term


def test_teacher_in_bf16_is_near(tmp_path):
    network, teacher, inputs = build('SparseDiT')
    path = tmp_path / 'dense.pth'
    torch.save(teacher.state_dict(), path)
    term = Distillation(
        dict(type='SparseDiT', **NETWORKS['SparseDiT']), teacher=str(path), dtype='bfloat16'
    )
    lower = term.teacher(network, torch.device('cpu'))
    assert lower.get_submodule('top.0').mlp.fc1.weight.dtype == torch.bfloat16
    _, terms = distilled(network, lower, inputs, (4, 4), dtype='bfloat16')
    assert terms['distill_tokens'] < 1e-3


def test_a_middle_left_out_is_taught_by_the_output_alone():
    network, teacher, inputs = build('SparseDiT')
    term = Distillation({}, teacher='')
    term._teacher = teacher
    x, t, y = inputs['x'], inputs['t'], dict(y=inputs['y'])
    output, terms = term(lambda: network(x, t, grid=(0, 0), **y), network, x, t, y, 1, grid=(0, 0))
    difference = (output - teacher(**inputs)).square()
    torch.testing.assert_close(terms['distill_output'], difference[:, :4].mean())
    assert terms['distill_tokens'] == 0 and len(terms) == 3


@pytest.mark.parametrize(
    'options', [dict(token_weight=-1), dict(data_weight=0, output_weight=0), dict(dtype='float16')]
)
def test_senseless_settings_are_refused(options):
    with pytest.raises(ValueError, match=r'distillation with weights|dtype of the teacher'):
        Distillation({}, teacher='', **options)


def test_compiled_tokens_are_refused():
    network, teacher, inputs = build('SparseDiT')
    term = Distillation({}, teacher='')
    term._teacher = teacher
    with pytest.raises(ValueError, match="set compile_by='layer'"):
        term(lambda: teacher(**inputs), network, inputs['x'], inputs['t'], dict(y=inputs['y']), 1)


def test_calibration_meets_every_stage(tmp_path):
    from test_generators import config

    generator = MODELS.build(config())
    data = [dict(inputs=torch.randn(4, 1, 8, 8), label=torch.arange(4))] * 8
    batches = list(calibration_batches(generator, data))
    stages = generator.prune.stages
    assert [batch['grid'] for batch in batches] == [stage.grid for stage in stages] * 2
    for batch, stage in zip(batches, stages, strict=False):
        assert stage.t_start <= batch['t'].min() and batch['t'].max() < stage.t_end
    assert not torch.equal(batches[0]['x'], batches[4]['x'])


def test_fitting_is_refused_without_data_or_recoveries():
    network, teacher, inputs = build('SparseDiT')
    with pytest.raises(ValueError, match='no batch'):
        fit_merges(network, teacher, [])
    with pytest.raises(ValueError, match='no recovery'):
        fit_merges(teacher, teacher, [dict(inputs, grid=None)])
    with pytest.raises(ValueError, match='clips alone'):
        fit_merges(network, teacher, [dict(inputs, grid=(2, 2), use_image_num=1)])


def test_a_distilled_run_resumes_and_saves_no_teacher(tmp_path):
    dense = 'configs/sparsedit/dit_digits.py'
    train(tmp_path / 'dense', 1, config=dense)
    teacher = f'model.distillation.teacher={tmp_path / "dense" / "iter_1.pth"}'
    options = (teacher, f'load_from={tmp_path / "dense" / "iter_1.pth"}',
               'default_hooks.checkpoint.interval=2')  # fmt: skip
    config = 'configs/sparsedit/digits_distill.py'
    whole = train(tmp_path / 'whole', 4, *options, config=config)
    assert isinstance(whole.model.network, nn.Module) and whole.model.distillation._teacher
    middle = tmp_path / 'whole' / 'iter_2.pth'
    train(tmp_path / 'resumed', 4, *options, config=config, resume=middle)
    a, b = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=True)
        for name in ('whole', 'resumed')
    )
    plain = set(MODELS.build(dict(whole.cfg.model, distillation=None)).state_dict())
    assert set(a['state_dict']) == plain
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, b[part][key]) for key, value in a[part].items())
