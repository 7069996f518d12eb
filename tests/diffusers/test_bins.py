"""Any size: all aspect bins of PixArt, one compilation for each size and stage."""

import pytest
import torch
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import (
    ASPECT_RATIO_256_BIN,
    ASPECT_RATIO_512_BIN,
    ASPECT_RATIO_1024_BIN,
)
from tiny_pipelines import pixart_pipeline, prompts, sparse_dit, sparse_pixart
from torch._dynamo.testing import CompileCounter

ONE_LAYER = dict(num_attention_heads=1, attention_head_dim=12, num_bottom=0, num_top=0)


@pytest.mark.parametrize(
    'bins,sample_size',
    [(ASPECT_RATIO_256_BIN, 32), (ASPECT_RATIO_512_BIN, 64), (ASPECT_RATIO_1024_BIN, 128)],
    ids=['256', '512', '1024'],
)
@torch.no_grad()
def test_every_bin_runs(bins, sample_size):
    # without a dense layer: 4096 tokens read each other slowly
    model = sparse_pixart(**ONE_LAYER, block_counts=(1, 0, 1, 0), sample_size=sample_size)
    given = prompts()
    for height, width in bins.values():
        size = (int(height) // 8, int(width) // 8)
        out = model(
            torch.ones(1, 4, *size),
            encoder_hidden_states=given['prompt_embeds'],
            timestep=torch.tensor([999]),
            added_cond_kwargs=dict(
                resolution=torch.tensor([[height, width]]),
                aspect_ratio=torch.tensor([[height / width]]),
            ),
        ).sample
        assert out.shape == (1, 8, *size) and out.isfinite().all()
        tokens = (size[0] // 2, size[1] // 2)
        grid = model.grid_at(999, tokens)
        rate = 1 - grid[0] * grid[1] / (tokens[0] * tokens[1])
        assert abs(rate - 0.9) < 0.06, (tokens, grid)  # a side is a whole number


@torch.no_grad()
def test_the_pipeline_bins():
    model = sparse_pixart(**ONE_LAYER, sample_size=32)
    pipe = pixart_pipeline(model)
    image = pipe(**prompts(), height=200, width=400, num_inference_steps=2, output_type='pt').images
    assert image.shape == (1, 3, 200, 400)
    assert set(model.network._other_sizes) == {(22, 44)}  # the bin of 176 x 352


@torch.no_grad()
def test_one_compilation_for_each_size_and_stage():
    torch._dynamo.reset()
    model = sparse_dit(**ONE_LAYER, prune=dict(r_min=0.4, r_max=0.9, num_stages=2))
    counter = CompileCounter()
    labels = torch.tensor([3, 1000])
    calls = [(torch.randn(2, 4, *size), t) for size in ((16, 16), (12, 20)) for t in (0, 999)]
    plain = [model(x, torch.tensor(t), labels).sample for x, t in calls]
    model.compile(backend=counter)
    for _ in range(2):
        for (x, t), wanted in zip(calls, plain, strict=True):
            out = model(x, torch.tensor([t, t]), labels).sample
            assert torch.allclose(out, wanted, atol=1e-6)
    assert counter.frame_count == 4
