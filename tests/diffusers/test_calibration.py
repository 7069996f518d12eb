"""A fitted start, from calls that the dense transformer received."""

import pytest
import torch
from tiny_pipelines import (
    PRUNE,
    VIDEO_PRUNE,
    dense_dit,
    dense_latte,
    dense_pixart,
    dit_pipeline,
    prompts,
)

from mmsparsedit.diffusers import fit_start, recorded_calls, sparsify

SEGMENTS = dict(num_bottom=1, num_top=1, block_counts=(1, 1, 1, 1))
CASES = {
    'dit': (dense_dit, PRUNE, SEGMENTS, (16, 16)),
    'pixart': (dense_pixart, PRUNE, SEGMENTS, (12, 20)),  # not the size of its positions
    'latte': (dense_latte, VIDEO_PRUNE, dict(num_bottom=2, num_top=0), (4, 12, 8)),
}


@torch.no_grad()
def recorded(name, dense, size, times=(50, 350, 600, 900)):
    draw = torch.Generator().manual_seed(0)
    text = prompts(2)
    with recorded_calls(dense) as calls:
        for t in times:
            x, t = torch.randn(2, 4, *size, generator=draw), torch.full((2,), t)
            if name == 'dit':
                dense(x, timestep=t, class_labels=torch.tensor([3, 1000]), return_dict=False)
            else:
                dense(x, timestep=t, encoder_hidden_states=text['prompt_embeds'])
    dense(**calls[-1])  # not recorded
    assert len(calls) == len(times) and set(calls[0]) >= {'hidden_states', 'timestep'}
    assert 'return_dict' not in calls[0]
    return calls


@pytest.mark.parametrize('name', CASES)
def test_what_is_not_the_dense_models_is_fitted_to_it(name):
    build, prune, segments, size = CASES[name]
    dense = build(scale=0.1)
    calls = recorded(name, dense, size)
    start = sparsify(dense, prune, **segments)
    fitted = sparsify(dense, prune, calibration=calls, **segments)
    assert fitted.training == dense.training
    for key, value in start.network.state_dict().items():
        same = torch.equal(value, fitted.network.state_dict()[key])
        own = '.attn.proj.' if key.startswith('bottom.') else 'merge_'
        moved = own in key or key.startswith('final_layer.linear.')
        moved &= not key.endswith('merge_sparse.bias')  # one bias is enough
        assert same != moved, key  # the layers' weights are left alone
    report = fit_start(start, dense, calls)
    merges = [row for row in report if 'recovery' in row.name]
    assert len(merges) == (2 if name == 'latte' else 1)
    assert len(report) == len(merges) + segments['num_bottom'] + 1
    assert all(row.fitted < 0.3 * row.start for row in merges), report
    assert all(row.fitted < row.start for row in report), report
    for key, value in start.network.state_dict().items():
        assert torch.equal(value, fitted.network.state_dict()[key]), key


@torch.no_grad()
def test_what_a_pipeline_drew_is_enough():
    """Outputs come nearer to the dense model's in every stage."""
    pipe = dit_pipeline(dense_dit(scale=0.1))
    with recorded_calls(pipe.transformer) as calls:
        pipe([3, 7], num_inference_steps=8, generator=torch.manual_seed(0))
    start, fitted = (
        sparsify(pipe, PRUNE, calibration=given, **SEGMENTS).transformer for given in (None, calls)
    )
    for call in calls[::2]:
        wanted = pipe.transformer(**call).sample
        off = [(m(**call).sample - wanted).square().mean() for m in (start, fitted)]
        assert off[1] < 0.5 * off[0], (call['timestep'], off)


def test_what_does_not_calibrate_is_refused():
    dense = dense_dit()
    calls = recorded('dit', dense, (16, 16))
    with pytest.raises(ValueError, match=r'leave out the grids \[\(3, 3\)\]'):
        sparsify(dense, PRUNE, calibration=calls[:3], **SEGMENTS)
    with pytest.raises(ValueError, match='leave out the grids'):
        sparsify(dense, PRUNE, calibration=[], **SEGMENTS)
    with pytest.raises(ValueError, match='set prune'):
        sparsify(dense, None, calibration=calls, **SEGMENTS)
