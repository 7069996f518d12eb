"""What the sparse transformers of diffusers share: the network inside, its grid, its blocks.

B batch, N dense tokens, C width.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin
from diffusers.hooks import TaylorSeerCacheConfig
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, _set_cache_context
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from mmsparsedit.models.acceleration import compiled_stage
from mmsparsedit.nn import SparseTransformer
from mmsparsedit.prune import TimestepPruneScheduler

from .times import HostTimes

ALIGNED = 64  # bytes, as torch allocates
CACHE_CONTEXT = 'denoise'  # a stock pipeline names none: one call makes both halves of guidance


class SparseBlock(nn.Module):
    """Where diffusers' hooks take hold of one step of the network: tokens (B, N, C) in and out.

    It has no weights; the step is a bottom layer, a whole SDTM or a top layer
    (``SparseTransformer.steps``), so that shapes are the same in every stage; or the last layer.
    All blocks of a call get the same arguments: whoever runs them in a loop of their own knows no
    others.
    """

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.index = index

    def forward(self, hidden_states: Tensor, condition: Any, steps: Sequence[Callable]) -> Tensor:
        return steps[self.index](hidden_states, condition)


TransformerBlockRegistry.register(
    SparseBlock,
    TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),
)


class SparseTransformerModel(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin):
    """A network of this package as a model of diffusers.

    ``network`` holds all weights under this package's names, so that a saved folder is also a
    checkpoint that ``load_pretrained`` reads. ``prune`` is the schedule; the token grid of a call
    is that of its ``timestep`` and of the size of its input. Timesteps that a loop takes from one
    tensor on a device are read once for all of them (``HostTimes``); another one is read in its
    call, which waits for the device.
    """

    network: SparseTransformer
    config_name = 'config.json'

    _supports_gradient_checkpointing = True
    _supports_group_offloading = False  # weights are read besides their own layer
    _supports_param_buffer_assignment = False  # it would leave the dtype of the file
    _no_split_modules = [
        'PatchEmbed', 'TimestepEmbedder', 'SizeEmbedder', 'SDTM', 'TransformerBlock',
        'PoolingFormerBlock', 'PixArtBlock', 'PixArtPoolingBlock',
    ]  # fmt: skip
    # weights that are read besides being called: they stay in the dtype of the computation
    _skip_layerwise_casting_patterns = [
        'x_embedder', 't_embedder', 'csize_embedder', 'ar_embedder', 'norm', r'attn\.qkv',
        'final_layer',
    ]  # fmt: skip
    _repeated_blocks = [
        'TransformerBlock', 'PoolingFormerBlock', 'PixArtBlock', 'PixArtPoolingBlock',
    ]  # fmt: skip

    def shared_options(self, config: Mapping) -> dict[str, Any]:
        """Arguments of ``SparseTransformer`` in diffusers' words, as its own."""
        in_channels, out_channels = config['in_channels'], config['out_channels']
        if out_channels not in (in_channels, 2 * in_channels):
            raise ValueError(
                f'out_channels {out_channels}: expected in_channels {in_channels}, or twice that '
                'where the network predicts its variance.'
            )
        same = (
            'in_channels', 'patch_size', 'mlp_ratio', 'num_bottom', 'num_sdtm', 'num_top',
            'reinject_pos_embed', 'upsample',
        )  # fmt: skip
        counts = config.get('block_counts')  # of image models
        sdtm = dict(sdtm=dict(type='SDTM', block_counts=tuple(counts))) if counts else {}
        return dict(
            input_size=config['sample_size'],
            hidden_size=config['num_attention_heads'] * config['attention_head_dim'],
            num_heads=config['num_attention_heads'],
            learn_sigma=out_channels == 2 * in_channels,
            **sdtm,
            **{name: config[name] for name in same},
        )

    def _hold(self, network: SparseTransformer, prune: Mapping | None) -> None:
        """Called by a subclass's constructor with what it built."""
        self.network = network
        self.prune = None
        self._times = HostTimes()
        if prune is not None:
            if not network.middle:
                raise ValueError('prune is set, but num_sdtm is 0: set num_sdtm, or drop prune.')
            self.prune = TimestepPruneScheduler(**{'token_grid': network.token_grid, **prune})
            if self.prune.token_grid != network.token_grid:
                raise ValueError(
                    f'token_grid {self.prune.token_grid} of prune is not the token grid '
                    f'{network.token_grid} of sample_size / patch_size: leave it out.'
                )
        self.blocks = nn.ModuleList(SparseBlock(i) for i in range(len(network.steps())))
        self.proj_out = SparseBlock()  # diffusers' name of a last layer
        self.gradient_checkpointing = False
        self._compile_options: tuple | None = None
        self._compiled: dict[tuple, Any] = {}
        self._context: CacheContext | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """diffusers' ``from_pretrained``, computing to the bit as what was saved.

        The position table comes in the dtype of the weights. Weights on the CPU leave the mapped
        file for memory of their own: at odd addresses a matrix product rounds otherwise.
        """
        found = super().from_pretrained(*args, **options)
        model = found[0] if isinstance(found, tuple) else found
        model.network.pos_embed = model.network.pos_embed.to(model.dtype)
        for weight in model.parameters():
            if weight.device.type == 'cpu' and weight.data_ptr() % ALIGNED:
                weight.data = weight.data.clone()
        return found

    # -- forward --------------------------------------------------------------------------------

    def network_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Arguments of the network's own forward, ``grid`` included, that a call stands for.

        Args:
            args, kwargs: of ``forward``, but ``return_dict``.
        """
        raise NotImplementedError

    def staged(self, x: Tensor, timestep: Tensor | float, **condition: Any) -> dict[str, Any]:
        """``x`` (B, ..., C_in, H, W), ``t`` (B,), the ``grid`` of ``timestep``, the condition."""
        grid = self.grid_at(timestep, self.network.at_size(x.shape[-2:]).token_grid)
        t = torch.as_tensor(timestep, device=x.device).reshape(-1).expand(x.shape[0])
        return dict(x=x, t=t, grid=grid, **condition)

    def denoise(self, x: Tensor, t: Tensor, grid: Any, **condition: Any) -> Tensor:
        """The network, compiled and inside a context of caches where these were asked for."""
        net = self.network.at_size(x.shape[-2:])
        run = self._run
        if self._compile_options is not None:
            key = (*net.token_grid, *(grid or ()))
            if key not in self._compiled:
                self._compiled[key] = self._compiled_run(key)
            run = self._compiled[key]
        if self._context is not None or not self.is_cache_enabled:
            return run(net, x, t, grid, condition)
        with self.cache_context(CACHE_CONTEXT):
            return run(net, x, t, grid, condition)

    def output(self, sample: Tensor, return_dict: bool) -> Transformer2DModelOutput | tuple[Tensor]:
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def grid_at(
        self, timestep: Tensor | float, token_grid: tuple[int, ...] | None = None
    ) -> tuple[int, ...] | None:
        """The token grid of one call; None for a network without schedule.

        Args:
            timestep: of the call, one number or one for each sample.
            token_grid: dense grid of the data, by default that of ``sample_size``.

        Raises:
            ValueError: timesteps of more than one stage, which no single grid serves.
        """
        if self.prune is None:
            return None
        prune = self.prune.for_grid(token_grid or self.network.token_grid)
        times = self._times.values(timestep)
        stages = {prune.stage_at(t).index for t in (min(times), max(times))}
        if len(stages) > 1:
            raise ValueError(
                f'timesteps from {min(times)} to {max(times)} in one call belong to several '
                'stages, and a call has one token grid: draw the timesteps of a batch inside one '
                'stage (prune.draw_stage).'
            )
        return prune.stages[stages.pop()].grid

    def plan(self, timesteps: Tensor | None) -> None:
        """Read the timesteps (n,) of a loop of one's own now, so that its calls read nothing.

        Calls are known by the memory of their ``timestep``, which has to be an element of
        ``timesteps``, or that expanded to a batch. Others are read as without a plan. A call with
        a view of timesteps on a device makes the plan by itself.

        Args:
            timesteps: ``scheduler.timesteps`` after ``set_timesteps``; None forgets the plan.
        """
        self._times.plan(timesteps)

    def _run(self, net, x: Tensor, t: Tensor, grid, condition: dict) -> Tensor:
        x, c = net.embed(x, t, **condition)  # (B, N, C)
        recompute = torch.is_grad_enabled() and self.gradient_checkpointing
        steps = net.steps(grid)
        for block in self.blocks:
            if recompute:
                x = self._gradient_checkpointing_func(block, x, c, steps)
            else:
                x = block(x, c, steps)
        return self.proj_out(x, c, [net.head])

    # -- compilation ----------------------------------------------------------------------------

    def compile(self, **options: Any) -> None:
        """Compile the network once for each size and stage it meets, with static shapes.

        The timestep is read outside of what is compiled. Another batch size compiles again.

        Args:
            options: of ``torch.compile``.
        """
        self._compile_options = tuple(options.items())
        self._compiled = {}

    def _compiled_run(self, key: tuple):
        def run(net, x, t, grid, condition):
            return self._run(net, x, t, grid, condition)

        return compiled_stage(run, key, dict(self._compile_options))

    # -- caches of diffusers --------------------------------------------------------------------

    def enable_cache(self, config: Any) -> None:
        """diffusers' ``enable_cache``; a cache that takes hold of no part of the model is an error.

        Raises:
            ValueError: the cache's patterns match no module here, or only ones to skip.
        """
        if isinstance(config, TaylorSeerCacheConfig) and not config.use_lite_mode:
            self._check_predicted(config)
        before = self._hooks()
        super().enable_cache(config)
        if self._hooks() == before:
            self.disable_cache()
            raise ValueError(
                f'{type(config).__name__} matches no module of {type(self).__name__}, so it would '
                'change nothing. Caches of whole blocks (FirstBlockCacheConfig, MagCacheConfig) '
                'work; those that look for attention modules of diffusers do not.'
            )

    def _check_predicted(self, config: TaylorSeerCacheConfig) -> None:
        """diffusers gives zeros for what is skipped, and would end with them."""
        predicted = config.cache_identifiers or ()
        names = [name for name, _ in self.named_modules()]
        if config.skip_predict_identifiers and not any(
            re.fullmatch(pattern, name) for pattern in predicted for name in names
        ):
            raise ValueError(
                f'skip_predict_identifiers {config.skip_predict_identifiers} skips modules, but '
                f'cache_identifiers {config.cache_identifiers} predicts none: the output would be '
                "made of zeros. Name what is predicted, e.g. ['proj_out'], or use_lite_mode=True."
            )

    def _hooks(self) -> set[tuple[str, str]]:
        return {
            (name, hook)
            for name, module in self.named_modules()
            for hook in getattr(getattr(module, '_diffusers_hook', None), 'hooks', {})
        }

    @contextmanager
    def cache_context(self, name: str, **where: Any) -> Iterator[None]:
        """diffusers' context of a cache; a call outside of any opens one of its own."""
        around, self._context = self._context, CacheContext(name, **where)
        try:
            with super().cache_context(name, **where):
                yield
        finally:
            self._context = around
            _set_cache_context(self, around)  # diffusers leaves none behind


def demand(**arguments: Any) -> None:
    """ValueError for what diffusers' signature may leave out and these networks read."""
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise ValueError(f'{", ".join(missing)} missing: the network reads it in every call.')


def refuse_unread(**arguments: Any) -> None:
    """ValueError for what diffusers' signature has and these networks cannot use."""
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, Mapping) and not value):
            raise ValueError(
                f'{name} was given, but the sparse networks have no use for it: leave it out.'
            )
