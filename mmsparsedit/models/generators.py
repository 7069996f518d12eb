"""The generator: network, diffusion process, prune schedule and autoencoder under MMEngine.

Here the mathematics meets the Runner. B batch; data x is an image in [-1, 1] or a scaled latent.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmsparsedit.diffusion import Guidance, RequestNoise
from mmsparsedit.nn.lora import add_adapters
from mmsparsedit.prune import Stage
from mmsparsedit.registry import MODELS, TASK_UTILS
from mmsparsedit.utils.uint8 import check_rule, to_uint8

from .acceleration import Acceleration
from .distillation import Distillation


@MODELS.register_module()
class DiffusionGenerator(BaseModel):
    """Class-conditional generator: trains by ``mode='loss'``, samples by ``mode='predict'``.

    All randomness of training is a function of (seed, iteration, sample): a resumed run draws the
    same numbers without any random state in the checkpoint, and a batch split over processes
    sees the noise that one process would have given it. All randomness of sampling belongs to the
    requests' seeds.

    Args:
        network: a ``SparseTransformer``, called as ``network(x, t, grid=grid, **condition)``.
        diffusion: the process, e.g. ``dict(type='GaussianDiffusion')``.
        sampler: e.g. ``dict(type='DDPMSampler', num_steps=250)``.
        prune: ``TimestepPruneScheduler``; None for a dense network.
        autoencoder: between images and latents; None for pixels, or for a generator that is only
            trained from latents. It is not part of the module tree, so that neither EMA nor
            checkpoints copy it.
        scale_factor: latents are multiplied by it before diffusion; 1 for pixels.
        cfg_scale, cfg_channels, cfg_interval: see ``Guidance``.
        cfg_prune: schedule of the unconditional half of guidance, whose calls are then separate
            and at grids of their own; ``token_grid`` and ``num_timesteps`` are those of ``prune``
            unless given. A grid of zeros leaves its middle segment out. None: the same grids.
        uint8_rule: of samples, see ``to_uint8``: ``'dit'`` (DiT's script, whose figures the paper's
            are compared with) or ``'adm'`` (ADM's, which changes 42 % of values by one level).
        acceleration: arguments of ``Acceleration``, e.g. ``dict(compile=True)``; ``accelerate``
            changes them later.
        distillation: arguments of ``Distillation``, e.g. ``dict(teacher='DiT-XL-2-256x256.pt')``:
            train towards a frozen dense model too. It is not part of the module tree either.
        lora: arguments of ``add_adapters``, e.g. ``dict(rank=4)``: train low-rank adapters and
            merges alone. Checkpoints then hold the adapters beside the weights, and wherever they
            are loaded without ``lora``, merged into them.
    """

    def __init__(
        self,
        network: dict,
        diffusion: dict,
        sampler: dict,
        prune: dict | None = None,
        autoencoder: dict | None = None,
        scale_factor: float = 1.0,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
        cfg_interval: tuple[float, float] | None = None,
        cfg_prune: dict | None = None,
        uint8_rule: str = 'dit',
        acceleration: dict | None = None,
        distillation: dict | None = None,
        lora: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        # batches come from pinned memory: their copy to the device need not be waited for
        super().__init__(data_preprocessor or dict(type='BaseDataPreprocessor', non_blocking=True))
        self.network = MODELS.build(network)
        if lora is not None:
            add_adapters(self.network, **lora)
        self.diffusion = TASK_UTILS.build(diffusion)
        self.sampler = TASK_UTILS.build(sampler)
        self.prune = None if prune is None else TASK_UTILS.build(prune)
        self._autoencoder = [None if autoencoder is None else MODELS.build(autoencoder)]
        self.scale_factor = scale_factor
        self.guidance = Guidance(
            cfg_scale, cfg_channels, None if cfg_interval is None else tuple(cfg_interval)
        )
        self.cfg_prune = self._build_cfg_prune(cfg_prune)
        self.uint8_rule = uint8_rule
        self.distillation = None if distillation is None else Distillation(network, **distillation)
        # timesteps (B,) and squared errors (B,) of the last training batch, for hooks
        self.last_errors: tuple[Tensor, Tensor] | None = None
        self._check()
        self.accelerate(**(acceleration or {}))

    @property
    def autoencoder(self):
        return self._autoencoder[0]

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one diffused sample: (C, H, W), or (F, C, H, W) for video."""
        return self.network.data_shape

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _build_cfg_prune(self, cfg_prune: dict | None):
        if cfg_prune is None:
            return None
        if self.prune is None:
            raise ValueError(
                'cfg_prune gives the unconditional half fewer tokens, and there is no prune for '
                'the conditional one: set prune (grids of the dense size keep all tokens).'
            )
        same = dict(token_grid=self.prune.token_grid, num_timesteps=self.prune.num_timesteps)
        return TASK_UTILS.build({'type': 'TimestepPruneScheduler', **same, **cfg_prune})

    def accelerate(self, **options) -> None:
        """Run the network as ``Acceleration`` does with ``options``; none turns everything off.

        What an earlier call had compiled is forgotten.
        """
        acceleration = Acceleration(**options)
        for part in filter(None, (acceleration.method, acceleration.merge)):
            part.check(self.network)
        if acceleration.method is not None and self.cfg_prune is not None:
            raise ValueError(
                f'{type(acceleration.method).__name__} keeps one state for both halves of '
                'guidance, and cfg_prune gives them two: set one of them.'
            )
        static = acceleration.compile is not None or acceleration.cuda_graphs
        if static and not self.network.static_shapes:
            raise ValueError(
                'compile and cuda_graphs need static shapes, and those of the network depend on '
                'its inputs: set pack_captions=False, the numbers are the same.'
            )
        self.acceleration = acceleration

    def _check(self) -> None:
        """Parts that cannot work together are refused before any work."""
        check_rule(self.uint8_rule)
        if self.network.learn_sigma != self.diffusion.learn_sigma:
            raise ValueError(
                f'network has learn_sigma={self.network.learn_sigma}, the diffusion process '
                f'{self.diffusion.learn_sigma}: set both alike (False for a rectified flow).'
            )
        guided = self.guidance.channels
        if guided is not None and guided > self.network.in_channels:
            raise ValueError(
                f'cfg_channels {guided} exceeds the {self.network.in_channels} predicted '
                f'channels: use 1 to {self.network.in_channels}, or None for all.'
            )
        if self.guidance.scale != 1 and not self.network.class_dropout_prob:
            raise ValueError(
                f'cfg_scale {self.guidance.scale} needs a null condition: train the network with '
                'class_dropout_prob > 0, or set cfg_scale=1.'
            )
        self.sampler.timesteps(self.diffusion)
        if self.prune is None:
            return
        if not self.network.middle:
            raise ValueError(
                'prune is set, but the network has no SDTM: set num_sdtm, or drop prune.'
            )
        for name, prune in (('prune', self.prune), ('cfg_prune', self.cfg_prune)):
            if prune is None:
                continue
            if tuple(prune.token_grid) != tuple(self.network.token_grid):
                raise ValueError(
                    f'{name}.token_grid {prune.token_grid} is not the token grid '
                    f'{self.network.token_grid} of the network: it is input_size / patch_size.'
                )
            if prune.num_timesteps != self.diffusion.num_train_timesteps:
                raise ValueError(
                    f'{name} counts {prune.num_timesteps} timesteps, the diffusion process '
                    f'{self.diffusion.num_train_timesteps}: set num_timesteps alike.'
                )

    def forward(self, mode: str = 'tensor', **batch):
        """MMEngine's entry: ``'loss'`` and ``'predict'`` take a collated batch as keywords;
        ``'tensor'`` is the network itself."""
        if mode == 'loss':
            return self.loss(**batch)
        if mode == 'predict':
            return self.predict(**batch)
        if mode == 'tensor':
            return self.network(**batch)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}.")

    # -- training -------------------------------------------------------------------------------

    def loss(self, inputs: Tensor, **conditions: Tensor) -> dict[str, Tensor]:
        """Loss terms of one iteration, means over the batch.

        Args:
            inputs: clean data (B, C, H, W), or the mean and log variance of an autoencoder's
                posterior, (B, 2C, H, W), from which a latent is drawn.
            conditions: what ``condition`` takes; ``label`` (B,) for classes.
        """
        hub = MessageHub.get_current_instance()
        seed, iteration = int(hub.get_info('seed', 0)), int(hub.get_info('iter', 0))
        stage = self.training_stage(seed, iteration)
        draw = batch_randomness(seed, iteration, inputs.device)
        x_start, noise, x_t, t, condition = self.noised(draw, stage, inputs, **conditions)
        grid = stage.grid if stage else None
        train = partial(self.acceleration.train, self.network, x_t, t, grid, condition)
        if self.distillation is None:
            output, distilled = train(), {}
        else:
            channel_dim = self.diffusion.channel_dim
            output, distilled = self.distillation(
                train, self.network, x_t, t, condition, channel_dim, grid
            )
        terms = self.diffusion.training_losses(output.float(), x_start, noise, x_t, t)
        self.last_errors = (t, terms['mse'].detach())
        means = {name: value.mean() for name, value in terms.items()}
        return means if self.distillation is None else self.distillation.total(means, distilled)

    def noised(
        self, draw: Callable, stage: Stage | None, inputs: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """What a training iteration makes of a batch, with the random numbers of ``draw``.

        Returns:
            Clean data, noise and noisy data, shaped alike; timesteps (B,) of ``stage``, of all for
            None; the network's conditioning, some of it dropped.
        """
        batch = inputs.shape[0]
        x_start = self._clean_data(inputs, draw)
        u = draw(torch.rand, (batch,))
        dropped = draw(torch.rand, (batch,)) < self.network.class_dropout_prob
        noise = draw(torch.randn, x_start.shape)
        if stage is not None and not any(stage.grid):  # only the unconditional half
            dropped = torch.ones_like(dropped)
        t_range = (0, self.diffusion.num_train_timesteps)
        if stage is not None:
            t_range = (stage.t_start, stage.t_end)
        t = self.diffusion.sample_timesteps(u, *t_range)
        x_t = self.diffusion.add_noise(x_start, noise, t)
        condition = self.condition(**conditions)
        if self.network.class_dropout_prob:
            condition = self.drop(condition, dropped)
        return x_start, noise, x_t, t, condition

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's, with the logged terms averaged over all processes."""
        loss, terms = super().parse_losses(losses)
        averaged = torch.stack([value.detach() for value in terms.values()])
        all_reduce(averaged, 'mean')
        return loss, dict(zip(terms, averaged, strict=True))

    def training_stage(self, seed: int, iteration: int) -> Stage | None:
        """The stage of this process in a training iteration; None for a dense network."""
        if self.prune is None:
            return None
        rank, _ = get_dist_info()
        return self.prune.draw_stage(seed, iteration, rank, self.diffusion.time_quantile)

    def training_grid(self, seed: int, iteration: int) -> tuple[int, ...] | None:
        """The token grid of this process in a training iteration; None for a dense network."""
        stage = self.training_stage(seed, iteration)
        return None if stage is None else stage.grid

    def _clean_data(self, inputs: Tensor, draw: Callable) -> Tensor:
        channel_dim = self.diffusion.channel_dim
        moments = list(self.data_shape)
        moments[channel_dim - 1] *= 2
        if list(inputs.shape[1:]) == moments:
            mean, log_variance = inputs.float().chunk(2, dim=channel_dim)
            latent = mean + (0.5 * log_variance).exp() * draw(torch.randn, mean.shape)
        elif inputs.shape[1:] == self.data_shape:
            latent = inputs.float()
        else:
            raise ValueError(
                f'training data of shape {tuple(inputs.shape[1:])}: expected {self.data_shape}, or '
                f'{tuple(moments)} for mean and log variance. Set input_size and in_channels of '
                'the network, or make latents of that size.'
            )
        return latent * self.scale_factor

    def condition(self, label: Tensor | None = None, **unused: Tensor) -> dict[str, Tensor]:
        """The network's conditioning: labels (B,); nothing where it has no classes."""
        if self.network.num_classes is None:
            return {}
        return dict(y=label)

    def drop(self, condition: dict[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
        """The condition with the samples where ``dropped`` (B,) replaced by "none"."""
        y = condition['y']
        return {**condition, 'y': torch.where(dropped, self.network.num_classes, y)}

    # -- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, seed: Tensor, **request: Tensor) -> list[BaseDataElement]:
        """Samples for requests: ``seed`` (B,), and what ``condition`` takes.

        Returns:
            One element per request: ``image`` uint8 (C, H, W) or ``video`` uint8 (F, C, H, W), and
            the request itself.
        """
        data = self.sample(seed.tolist(), **request)
        wrong = ~torch.isfinite(data).flatten(1).all(1)
        if wrong.any():
            raise ValueError(
                f'the samples of seeds {seed[wrong.cpu()].tolist()[:5]} are not finite: the '
                'weights or the sampler diverge. Check the checkpoint, then mixed precision.'
            )
        samples = self.decode(data).cpu()
        kind = 'video' if samples.ndim == 5 else 'image'
        results = []
        for i, sample in enumerate(samples):
            asked = {key: _item(value[i]) for key, value in request.items()}
            results.append(BaseDataElement(**{kind: sample}, seed=int(seed[i]), **asked))
        return results

    @torch.no_grad()
    def sample(
        self, seeds: Sequence[int], callback: Callable | None = None, **request: Tensor
    ) -> Tensor:
        """Sampled data (B, C, H, W), scaled as diffused; ``callback(i, t, x)`` after each step."""
        noise = RequestNoise(seeds, self.data_shape, self.device)
        model = self.denoiser(len(seeds), **request)
        return self.sampler(model, noise(), self.diffusion, noise, callback)

    @torch.no_grad()
    def denoiser(self, batch: int, **request: Tensor) -> Callable[[Tensor, float], Tensor]:
        """The ``model(x, t)`` of samplers for one trajectory of ``batch`` requests.

        Grids and guidance are those of t. Nothing of it waits for the device.
        """
        self._check_request(**request)
        request = {
            key: value.to(self.device) if isinstance(value, Tensor) else value
            for key, value in request.items()
        }
        condition = self.condition(**request)
        both = None if self.guidance.scale == 1 else self.guided_condition(condition, batch)
        calls = len(self.sampler.timesteps(self.diffusion))
        run = self.acceleration.trajectory(self.network, calls)
        channel_dim = self.diffusion.channel_dim
        unguided_somewhere = both is None or self.guidance.interval is not None
        halves = None
        if both is not None and self.cfg_prune is not None:
            halves = [
                {key: value[part] for key, value in both.items()}
                for part in (slice(batch), slice(batch, None))
            ]
            halves = [run.read(half) for half in halves]
        elif both is not None:
            both = run.read(both)
        if unguided_somewhere:
            condition = run.read(condition)

        @torch.no_grad()
        def model(x: Tensor, t: float) -> Tensor:
            grid = self.prune.grid_at(t) if self.prune is not None else None
            time = torch.full((x.shape[0],), float(t), device=x.device)
            if not self.guidance.active_at(t):
                return run(x, time, grid, condition).float()
            if halves is not None:
                grids = (grid, self.cfg_prune.grid_at(t))
                outputs = [run(x, time, *half).float() for half in zip(grids, halves, strict=True)]
                return self.guidance.combine(*outputs, x.shape[channel_dim], channel_dim)
            output = run(torch.cat([x, x]), time.repeat(2), grid, both, guided=True).float()
            return self.guidance.combine(*output.chunk(2), x.shape[channel_dim], channel_dim)

        return model

    def guided_condition(self, condition: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
        """The conditioning of both halves of guidance: ``condition``, then nothing."""
        everywhere = torch.ones(batch, dtype=torch.bool, device=self.device)
        null = self.drop(condition, everywhere)
        return {key: torch.cat([condition[key], null[key]]) for key in condition}

    def decode(self, x: Tensor) -> Tensor:
        """Diffused data -> uint8 (B, C, H, W) or (B, F, C, H, W), by ``uint8_rule``."""
        x = x / self.scale_factor
        if self.autoencoder is not None:
            # the frames of a video are decoded as images
            x = self.autoencoder.decode(x.flatten(0, -4)).unflatten(0, x.shape[:-3])
        elif self.scale_factor != 1:
            raise ValueError(
                'the generator diffuses latents (scale_factor '
                f'{self.scale_factor}) but has no autoencoder to decode them: set '
                "model.autoencoder=dict(type='DiffusersVAE', pretrained=FOLDER)."
            )
        return to_uint8(x, self.uint8_rule)

    def _check_request(self, label: Tensor | None = None, **unused) -> None:
        if label is None or self.network.num_classes is None:
            return
        wrong = label[(label < 0) | (label >= self.network.num_classes)]
        if wrong.numel():
            raise ValueError(
                f'label {wrong[0].item()} is out of range: the network has '
                f'{self.network.num_classes} classes, 0 to {self.network.num_classes - 1}.'
            )


def batch_randomness(seed: int, iteration: int, device: torch.device) -> Callable:
    """Random numbers of one iteration, for this process's share of the global batch.

    Every process draws the numbers of the whole batch and keeps those of its own samples, which
    stand at rank, rank + world, ... as the sampler deals them.
    """
    state = np.random.SeedSequence((seed, iteration)).generate_state(1, np.uint64)[0]
    generator = torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
    rank, world = get_dist_info()

    def draw(function: Callable, shape: Sequence[int]) -> Tensor:
        whole = function((shape[0] * world, *shape[1:]), generator=generator, device=device)
        return whole[rank::world]

    return draw


def _item(value):
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
