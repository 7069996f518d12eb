"""Tiny random parts of diffusers' pipelines."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)

from mmsparsedit.diffusers import (
    SparseDiTTransformer2DModel,
    SparseLatteTransformer3DModel,
    SparsePixArtTransformer2DModel,
)

PRUNE = dict(r_min=0.4, r_max=0.9)
SHAPE = dict(num_attention_heads=2, attention_head_dim=12, sample_size=16)
SPARSE = dict(num_bottom=1, num_sdtm=1, num_top=1, block_counts=(1, 1, 1, 1), prune=PRUNE)
VIDEO = dict(num_bottom=2, num_sdtm=1, num_top=2, video_length=4)
VIDEO_PRUNE = dict(r_min=0.7, r_max=0.95, num_frames=2)
CAPTION = dict(caption_channels=8, model_max_length=6)


def randomised(model, scale=0.2):
    """With all weights drawn, so that nothing is the identity."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * scale)
    return model.eval()


def sparse_dit(**changes):
    return randomised(SparseDiTTransformer2DModel(**{**SHAPE, **SPARSE, **changes}))


def sparse_pixart(**changes):
    return randomised(SparsePixArtTransformer2DModel(**{**SHAPE, **SPARSE, **CAPTION, **changes}))


def sparse_latte(**changes):
    options = {**SHAPE, **VIDEO, **CAPTION, 'prune': VIDEO_PRUNE, **changes}
    return randomised(SparseLatteTransformer3DModel(**options))


def dense_dit(layers=6, norm_eps=1e-6, scale=0.2):
    """Each layer carries a copy of the embedders, as in DiT's checkpoints there."""
    dense = randomised(
        DiTTransformer2DModel(**SHAPE, out_channels=8, num_layers=layers, norm_eps=norm_eps),
        scale,
    )
    embedders = dense.transformer_blocks[0].norm1.emb.state_dict()
    for block in dense.transformer_blocks:
        block.norm1.emb.load_state_dict(embedders)
    return dense


def dense_pixart(layers=6, scale=0.2):
    return randomised(
        PixArtTransformer2DModel(
            **SHAPE, out_channels=8, num_layers=layers, cross_attention_dim=24, caption_channels=8
        ),
        scale,
    )


def dense_latte(layers=4, scale=0.2):
    """As in diffusers' own test of the pipeline, but for the number of layers and frames."""
    return randomised(
        LatteTransformer3DModel(
            sample_size=8,
            num_layers=layers,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=8,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            attention_bias=True,
            activation_fn='gelu-approximate',
            num_embeds_ada_norm=1000,
            norm_type='ada_norm_single',
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=4,
        ),
        scale,
    )


def autoencoder():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    ).eval()


def dit_pipeline(transformer):
    pipe = DiTPipeline(transformer, autoencoder(), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixart_pipeline(transformer):
    """Without tokenizer and text encoder: prompts come as embeddings."""
    pipe = PixArtAlphaPipeline(
        None, None, autoencoder(), transformer, DPMSolverMultistepScheduler()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latte_pipeline(transformer):
    """Without tokenizer and text encoder: prompts come as embeddings."""
    pipe = LattePipeline(None, None, autoencoder(), transformer, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latte_prompts():
    given = prompts()
    kept = ('negative_prompt', 'prompt_embeds', 'negative_prompt_embeds')
    size = dict(video_length=4, height=64, width=64)
    return {key: given[key] for key in kept} | size


def prompts(batch=1, length=6):
    draw = torch.Generator().manual_seed(1)
    return dict(
        prompt=None,
        negative_prompt=None,
        prompt_embeds=torch.randn(batch, length, 8, generator=draw),
        negative_prompt_embeds=torch.randn(batch, length, 8, generator=draw),
        prompt_attention_mask=torch.tensor([[1] * 4 + [0] * 2] * batch),
        negative_prompt_attention_mask=torch.tensor([[1] + [0] * 5] * batch),
    )
