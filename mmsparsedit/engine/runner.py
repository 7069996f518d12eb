"""MMEngine's Runner where its own ways do not hold for large generators.

Differences from the stock Runner, and nothing else:
* the dump of environment and config goes to the log file, the console stays for progress;
* checkpoints hold tensors and plain containers, are written whole or not at all, stream to the
  disk, and are read with ``weights_only=True``;
* ``load_from`` takes every layout of ``load_pretrained`` and accounts for every weight;
  ``load_options`` of the config are its further arguments;
* several processes work without a GPU (gloo); a network may be sharded among them (FSDP) with
  the same checkpoints, EMA and resuming;
* ``recompute_layers=True`` of the config keeps no activations inside layers (activation
  checkpointing);
* gradient accumulation counts in ``auto_scale_lr`` and in the average of weights;
* batches are pinned where there is a GPU, so that their copy to it is not waited for;
* data and checkpoint are looked for before the network is built;
* a work dir belongs to one training at a time, and a resumed one goes on from its newest sound
  checkpoint, whose words are read as data;
* ``env_cfg.dist_cfg.timeout``, in seconds, holds without a GPU too, and the error names the
  processes that were waited for.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import mmengine
import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmsparsedit.models.checkpoints import load_pretrained, read_checkpoint, write_checkpoint
from mmsparsedit.registry import DATASETS, MODEL_WRAPPERS, RUNNERS, class_of

from .checkpoint_files import check_resumable, find_sound_checkpoint, known_meta, locked, point_to
from .heartbeat import LOST, who_was_waited_for
from .hooks.preemption_hook import worker_ignores_sigterm
from .plain_checkpoint import plain, restored
from .recompute import recompute_layers
from .replicas import ReplicatedModel
from .sharding import FullyShardedModel, gather, shard_checkpoint
from .slurm import slurm_ranks

_STOCK_HOOKS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'}


@RUNNERS.register_module()
class DiffusionRunner(Runner):
    """Runner of generators; configs name it by ``runner_type``."""

    def __init__(
        self, *args, train_dataloader=None, load_from: str | None = None, **kwargs
    ) -> None:
        # what a user can get wrong comes first: building a large network takes a minute
        if isinstance(train_dataloader, Mapping):
            dataset = train_dataloader['dataset']
            dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
            pinned = torch.cuda.is_available() and train_dataloader.get('pin_memory', True)
            train_dataloader = {**train_dataloader, 'dataset': dataset, 'pin_memory': pinned}
        if load_from is not None and '://' not in load_from and not os.path.exists(load_from):
            raise FileNotFoundError(
                f'load_from {load_from!r} does not exist. Put the checkpoint there (the comment '
                'above load_from in the config says where it comes from), name another file with '
                '--cfg-options load_from=PATH, or start from random weights with load_from=None.'
            )
        super().__init__(*args, train_dataloader=train_dataloader, load_from=load_from, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not torch.cuda.is_available():
            if self.launcher not in ('pytorch', 'slurm'):
                raise ValueError(
                    f"launcher {self.launcher!r} without a GPU: use 'pytorch' (torchrun) or "
                    "'slurm', which run on gloo then."
                )
            if not torch.distributed.is_initialized():
                if self.launcher == 'slurm':
                    os.environ.update(slurm_ranks(os.environ))
                seconds = (env_cfg.get('dist_cfg') or {}).get('timeout')
                timeout = None if seconds is None else timedelta(seconds=seconds)
                torch.distributed.init_process_group('gloo', timeout=timeout)
        super().setup_env(env_cfg)

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False):
        """MMEngine's, with workers that leave SIGTERM to the main process.

        Without the mark that inheriting ``mmsparsedit::...`` leaves in configs.
        """
        if isinstance(dataloader, Mapping) and isinstance(dataloader.get('collate_fn'), Mapping):
            collate = {k: v for k, v in dataloader['collate_fn'].items() if k != '_scope_'}
            dataloader = {**dataloader, 'collate_fn': collate}
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if getattr(built, 'num_workers', 0):
            built.worker_init_fn = partial(_init_worker, built.worker_init_fn)
        return built

    def train(self) -> nn.Module:
        """MMEngine's ``train``, in a work dir that no other training writes to meanwhile."""
        held = locked(self.work_dir) if is_main_process() else nullcontext()
        if self._randomness_cfg.get('seed') is None:
            self.logger.warning(
                f'randomness.seed is None: this run drew the seed {self.seed}; without it nobody '
                'can repeat the run. Set randomness.seed.'
            )
        with held:
            try:
                return super().train()
            except RuntimeError as error:
                if self.distributed and LOST.search(str(error)):
                    raise RuntimeError(who_was_waited_for(self, error)) from error
                raise

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Any hook of a config may be set to None, not only MMEngine's own."""
        hooks = hooks or {}
        kept = {n: h for n, h in hooks.items() if h is not None or n in _STOCK_HOOKS}
        if isinstance(kept.get('ema'), Mapping) and self.cfg.get('optim_wrapper'):
            interval = self.cfg.optim_wrapper.get('accumulative_counts', 1)
            kept['ema'] = {'interval': interval, **kept['ema']}  # one average per update
        super().register_default_hooks(kept)

    def build_logger(self, *args, **kwargs):
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(
                handler, logging.FileHandler
            ):
                handler.setLevel(max(handler.level, logging.WARNING))
                handler.addFilter(_no_stack_noise)
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.cfg.get('activation_checkpointing'):
            raise ValueError(
                "activation_checkpointing is MMEngine's key, which takes no layers with keyword "
                'arguments: set recompute_layers=True instead, it covers every layer.'
            )
        training = self._train_loop is not None
        if training and self.cfg.get('recompute_layers'):
            recompute_layers(model.network)
        options = dict(model_wrapper_cfg or {})
        wrapper = class_of(options, MODEL_WRAPPERS, 'ReplicatedModel')
        if wrapper is FullyShardedModel:
            if self.distributed and training:
                self._check_validation()
                module = model.to(get_device())
                return MODEL_WRAPPERS.build(options, default_args=dict(module=module))
            options, wrapper = {}, ReplicatedModel  # a test, or one process: nothing to shard
        if wrapper is not None:  # the stock Runner asks for a name
            options['type'] = f'{wrapper.__module__}.{wrapper.__qualname__}'
        if wrapper is ReplicatedModel:  # as the stock Runner wraps where no wrapper is named
            options.setdefault('broadcast_buffers', False)
            unused = self.cfg.get('find_unused_parameters', False)
            options.setdefault('find_unused_parameters', unused)
        if self.distributed and not torch.cuda.is_available():
            options['device_ids'] = None
            options.setdefault('broadcast_buffers', False)
        return super().wrap_model(options, model)

    def _check_validation(self) -> None:
        """All processes run a sharded network together, so each needs as many samples."""
        loader = self._val_dataloader
        if loader is None:
            return
        dataset = loader['dataset'] if isinstance(loader, Mapping) else loader.dataset
        count = dataset.get('num_samples', 0) if isinstance(dataset, Mapping) else len(dataset)
        if count % self.world_size:
            raise ValueError(
                f'validation of {count} samples by {self.world_size} processes with a sharded '
                'network: each needs as many. Set val_dataloader.dataset.num_samples to a '
                f'multiple of {self.world_size}, or drop validation (val_dataloader, val_cfg and '
                'val_evaluator None) and use tools/test.py.'
            )

    def _init_model_weights(self) -> None:
        if not self.sharded:
            super()._init_model_weights()
            return
        with self._gathered_network() as network:
            network.init_weights()

    def _gathered_network(self) -> AbstractContextManager[nn.Module]:
        """The network, to change its weights; gathered for it where it is sharded."""
        if self.sharded:
            return self.model.gathered_network()
        return nullcontext(self.bare_model.network)

    @property
    def bare_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    @property
    def sharded(self) -> bool:
        """Whether the network is sharded among the processes, which then all have to run it."""
        return isinstance(self.model, FullyShardedModel)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """MMEngine's linear scaling by the batch of an update, accumulation included."""
        if auto_scale_lr and auto_scale_lr.get('enable') and 'base_batch_size' in auto_scale_lr:
            base = auto_scale_lr['base_batch_size'] / optim_wrapper._accumulative_counts
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = 'cpu',
        strict: bool = True,
        revise_keys: list | None = None,
    ) -> dict:
        """Read a checkpoint to resume from, or weights to start from or to test."""
        if self._resume:
            checkpoint = read_checkpoint(filename, 'cpu' if self.sharded else map_location)
            averaged = any(isinstance(hook, EMAHook) for hook in self.hooks)
            check_resumable(filename, checkpoint, averaged)
            if is_main_process() and os.path.dirname(os.path.abspath(filename)) == self.work_dir:
                point_to(self.work_dir, filename)  # a killed run may not have said so
            checkpoint['meta'] = self._same_dataset_meta(known_meta(checkpoint['meta']))
            try:
                checkpoint['message_hub'] = restored(checkpoint['message_hub'])
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise ValueError(f'{filename} has a damaged message_hub: {error!r}') from error
            if self.sharded:
                shard_checkpoint(checkpoint, self.bare_model, self.optim_wrapper.optimizer)
            try:
                self.call_hook('after_load_checkpoint', checkpoint=checkpoint)  # the averages
                self.bare_model.load_state_dict(checkpoint['state_dict'], strict=True)
            except RuntimeError as error:
                if 'state_dict' not in str(error):
                    raise
                differing = ' '.join(str(error).split())
                raise ValueError(
                    f'{filename} was trained with another network: {differing[:300]}. Resume with '
                    'its own config.'
                ) from error
        else:
            checkpoint = read_checkpoint(filename, map_location)
            options = self.cfg.get('load_options') or {}
            with self._gathered_network() as network:
                report = load_pretrained(network, checkpoint, **options)
            self.logger.info(f'{filename}: {report.summary()}')
            if self._test_loop is not None and self._train_loop is None:
                report.check_complete(filename)
            checkpoint = dict(state_dict=self.bare_model.state_dict())
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._has_loaded = True
        return checkpoint

    def load_or_resume(self) -> None:
        """MMEngine's, where resuming means the newest sound checkpoint of the work dir."""
        if self._resume and self._load_from is None and not self._has_loaded:
            found = find_sound_checkpoint(self.work_dir)
            for reason in found.passed_over:
                self.logger.warning(f'not resumed from: {reason}')
            if found.path is None:
                self.logger.warning(f'no checkpoint in {self.work_dir}: starting anew')
                self._resume = False
            else:
                self._load_from = str(found.path)
        super().load_or_resume()

    def _same_dataset_meta(self, meta: dict) -> dict:
        """``meta`` with the data set's own description where the saved one says the same.

        MMEngine compares pickles: a saved list is not the tuple that it was, and warns.
        """
        now = getattr(self.train_dataloader.dataset, 'metainfo', None)
        try:
            same = plain(now) == meta.get('dataset_meta')
        except (TypeError, RuntimeError):  # not plain; tensors have no single truth
            same = False
        return {**meta, 'dataset_meta': now} if same else meta

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """The stock Runner's content, in plain containers, streamed to a local file.

        The main process writes; the others take part where the network is sharded.
        """
        if not is_main_process() and not self.sharded:
            return
        if file_client_args or backend_args:
            raise ValueError(
                f'checkpoints are written to a local folder, got file_client_args='
                f'{file_client_args}, backend_args={backend_args}: drop them and copy the files.'
            )
        if not isinstance(self.optim_wrapper, OptimWrapper):
            raise TypeError(f'expected a built OptimWrapper, got {type(self.optim_wrapper)}.')
        meta = {
            'epoch': self.epoch + int(by_epoch),
            'iter': self.iter + int(not by_epoch),
            **(meta or {}),
            'saved_at': time.time(),
            'cfg': self.cfg.pretty_text,
            'seed': self.seed,
            'experiment_name': self.experiment_name,
            'mmengine_version': mmengine.__version__,
            'dataset_meta': getattr(self.train_dataloader.dataset, 'metainfo', None),
        }
        checkpoint = {
            'meta': meta,
            'state_dict': self.bare_model.state_dict(),
            'message_hub': self.message_hub.state_dict(),
        }
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = [s.state_dict() for s in self.param_schedulers]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        if self.sharded:
            checkpoint = gather(checkpoint, keep=is_main_process())
        if is_main_process():
            write_checkpoint(plain(checkpoint), os.path.join(out_dir, filename))


def _init_worker(init: Callable | None, worker_id: int) -> None:
    worker_ignores_sigterm(worker_id)
    if init is not None:
        init(worker_id)


def _no_stack_noise(record: logging.LogRecord) -> bool:
    """MMEngine warns of its own FileClient, and of a replay that SeekableTrainLoop spares."""
    noise = ('FileClient', 'HardDiskBackend', 'Advance dataloader')
    return not any(words in record.getMessage() for words in noise)
