"""What a training refuses to write, to resume from and to share."""

import copy
import errno
import os
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmsparsedit.engine.checkpoint_files import (
    check_resumable,
    find_sound_checkpoint,
    known_meta,
    locked,
)
from mmsparsedit.engine.hooks import checkpoint_hook
from mmsparsedit.registry import HOOKS

from runs import train

EVERY = ('default_hooks.checkpoint.interval=4', 'default_hooks.invalid_loss.interval=3')


@HOOKS.register_module(force=True)
class Sabotage(Hook):
    """At one iteration makes the loss, a gradient or a weight NaN; may then ask to stop."""

    priority = 'VERY_HIGH'

    def __init__(self, what, at, sigterm=False, repeat=1):
        self.what, self.iterations, self.sigterm = what, range(at, at + repeat), sigterm

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.model.network.t_embedder.mlp[0].weight.requires_grad_(True)
        if runner.iter not in self.iterations:
            return
        weight = runner.model.network.final_layer.linear.weight
        if self.what == 'loss':
            inputs = data_batch['inputs']
            inputs.fill_(float('nan'))
        elif self.what == 'gradient':
            handle = weight.register_hook(lambda gradient: gradient * float('inf') * 0)
            self.handles = [handle]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for handle in getattr(self, 'handles', ()):
            handle.remove()
        if runner.iter not in self.iterations:
            return
        if self.what == 'weight':
            with torch.no_grad():
                runner.model.network.final_layer.linear.bias[0] = float('nan')
        if self.sigterm:
            os.kill(os.getpid(), signal.SIGTERM)


def sabotaged(folder, what, at, *options, **kwargs):
    custom = dict(type='Sabotage', what=what, at=at, **kwargs)
    return train(folder, 24, *EVERY, *options, custom_hooks=[custom])


def numbers(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


def all_finite(path):
    checkpoint = torch.load(path, weights_only=True)
    parts = ('state_dict', 'ema_state_dict', 'optimizer')
    return all(torch.isfinite(v).all() for part in parts for v in numbers(checkpoint[part]))


@pytest.mark.parametrize('sigterm', [False, True])
@pytest.mark.parametrize('what', ['loss', 'gradient', 'weight'])
def test_nothing_that_is_not_finite_is_written(tmp_path, what, sigterm):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(FloatingPointError, match=r'after iteration 1\d, stage \d') as caught:
            sabotaged(tmp_path, what, 9, sigterm=sigterm)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert str(tmp_path / 'iter_8.pth') in str(caught.value)
    saved = sorted(tmp_path.glob('*.pth'))
    assert [path.name for path in saved] == ['iter_4.pth', 'iter_8.pth']
    assert all(map(all_finite, saved)) and not list(tmp_path.glob('.*.part'))
    if what == 'loss' and not sigterm:  # which saves, and so looks at the weights, earlier
        assert 'the loss is not finite after iteration 10, stage' in str(caught.value)


def test_updates_without_finite_gradients_are_left_out_if_asked_for(tmp_path):
    asked = 'optim_wrapper.skip_nonfinite=3'
    runner = sabotaged(tmp_path / 'few', 'gradient', 9, asked, repeat=2)
    assert runner.optim_wrapper.skipped == 2 and all_finite(tmp_path / 'few/iter_24.pth')
    with pytest.raises(FloatingPointError, match='3 updates in a row'):
        sabotaged(tmp_path / 'many', 'gradient', 9, asked, repeat=5)
    assert find_sound_checkpoint(tmp_path / 'many').path.name == 'iter_8.pth'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    train(folder, 12, *EVERY)
    return folder


def copy_of(trained, folder):
    folder.mkdir()
    for path in trained.glob('iter_*.pth'):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize('pointer', [None, '', 'iter_1', '/nowhere/iter_12.pth', '\0\0'])
def test_the_pointer_is_a_hint(trained, tmp_path, pointer):
    folder = copy_of(trained, tmp_path / 'moved')
    if pointer is not None:
        (folder / 'last_checkpoint').write_text(pointer)
    assert find_sound_checkpoint(folder) == (folder / 'iter_12.pth', ())


def test_unsound_checkpoints_are_passed_over(trained, tmp_path):
    folder = copy_of(trained, tmp_path / 'damaged')
    newest = folder / 'iter_12.pth'
    data = bytearray(newest.read_bytes())
    with zipfile.ZipFile(newest) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda member: member.file_size))
    data[data.index(largest) + len(largest) // 2] ^= 4  # not in what pads its members
    newest.write_bytes(data)
    content = torch.load(folder / 'iter_8.pth', weights_only=True)
    content['ema_state_dict']['module.network.final_layer.linear.bias'][0] = float('nan')
    torch.save(content, folder / 'iter_8.pth')
    found = find_sound_checkpoint(folder)
    assert found.path == folder / 'iter_4.pth'
    assert 'iter_12.pth is damaged' in found.passed_over[0]
    assert "ema_state_dict['module.network.final_layer" in found.passed_over[1]


def test_the_newest_is_the_one_saved_last(trained, tmp_path):
    """A run that began anew in the folder of a longer one."""
    folder = copy_of(trained, tmp_path / 'again')
    content = torch.load(folder / 'iter_4.pth', weights_only=True)
    content['meta']['saved_at'] += 3600
    torch.save(content, folder / 'iter_4.pth')
    assert find_sound_checkpoint(folder).path == folder / 'iter_4.pth'


def test_what_a_resumed_run_needs_is_there(trained):
    checkpoint = torch.load(trained / 'iter_12.pth', weights_only=True)
    check_resumable('x.pth', checkpoint, averaged=True)
    for key in ('meta', 'state_dict', 'optimizer', 'message_hub', 'ema_state_dict'):
        rest = {k: v for k, v in checkpoint.items() if k != key}
        with pytest.raises(ValueError, match=rf"x.pth cannot be resumed from: it lacks \['{key}'"):
            check_resumable('x.pth', rest, averaged=True)
    averages = dict(checkpoint['ema_state_dict'])
    del averages['module.network.final_layer.linear.bias']
    with pytest.raises(ValueError, match='lacks the average of .*final_layer.linear.bias'):
        check_resumable('x.pth', {**checkpoint, 'ema_state_dict': averages})
    for value in (-1, 2.0, '5', None):
        meta = {**checkpoint['meta'], 'iter': value}
        with pytest.raises(ValueError, match='its meta says iter='):
            check_resumable('x.pth', {**checkpoint, 'meta': meta})


def test_a_config_inside_a_checkpoint_does_not_run(trained, tmp_path):
    """MMEngine's resume executes meta['config']."""
    folder = copy_of(trained, tmp_path / 'run')
    content = torch.load(folder / 'iter_12.pth', weights_only=True)
    content['meta']['config'] = f'open({str(tmp_path / "ran")!r}, "w")\ngpu_ids = [0, 1, 2]'
    content['message_hub']['runtime_info']['keep_ckpt_ids'] = ['../../victim', 8]
    content['message_hub']['runtime_info']['best_ckpt'] = str(tmp_path / 'victim.pth')
    torch.save(content, folder / 'iter_12.pth')
    victim = tmp_path / 'victim.pth'
    victim.write_text('precious')
    train(folder, 16, *EVERY, 'default_hooks.checkpoint.max_keep_ckpts=1',
          resume=folder / 'iter_12.pth')  # fmt: skip
    assert not (tmp_path / 'ran').exists() and victim.read_text() == 'precious'
    assert 'config' not in known_meta(content['meta'])


def test_a_resumed_run_says_nothing_of_its_own_data(trained, tmp_path, caplog):
    runner = train(tmp_path, 16, *EVERY, resume=trained / 'iter_12.pth')
    log = next(Path(runner._log_dir).glob('*.log')).read_text()
    assert 'metainfo' not in log


def test_a_run_without_a_seed_says_which_it_drew(tmp_path):
    runner = train(tmp_path, 2, 'randomness.seed=None')
    log = next(Path(runner._log_dir).glob('*.log')).read_text()
    assert f'randomness.seed is None: this run drew the seed {runner.seed}' in log


def test_processes_compare_their_weights_before_a_save(monkeypatch):
    """One process plays two: what the other would have sent is its own model's."""
    sent = []

    def digests(model):
        monkeypatch.setattr(checkpoint_hook, 'all_reduce', lambda ends, op: sent.append(ends))
        checkpoint_hook.check_agreement(model)
        return sent.pop()

    def agree(model, other):
        theirs = digests(other)
        monkeypatch.setattr(
            checkpoint_hook, 'all_reduce', lambda ends, op: ends.copy_(ends.maximum(theirs))
        )
        checkpoint_hook.check_agreement(model)

    monkeypatch.setattr(checkpoint_hook, 'get_world_size', lambda: 2)
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3))).bfloat16()
    model[2].float()
    agree(model, copy.deepcopy(model))
    for change in ('bit', 'swap', 'sign'):
        other = copy.deepcopy(model)
        if change == 'bit':
            other[2].weight.data.view(torch.int32)[1, 2] ^= 1
        elif change == 'swap':
            other[0], other[1] = other[1], other[0]
        else:
            other[1].bias.data[3] *= -1
        with pytest.raises(RuntimeError, match='the processes hold different weights'):
            agree(model, other)


def test_one_training_holds_a_work_dir(tmp_path):
    with locked(tmp_path):
        with pytest.raises(ValueError, match=f'in use by another training .process {os.getpid()} '):
            train(tmp_path, 2)
        assert not list(tmp_path.glob('*.pth'))
    train(tmp_path, 2)
    assert (tmp_path / 'iter_2.pth').is_file()


def test_a_full_disk_leaves_the_older_files_whole(trained, tmp_path, monkeypatch):
    folder = copy_of(trained, tmp_path / 'full')
    before = {path.name: path.read_bytes() for path in folder.glob('iter_*.pth')}
    save = torch.save

    def full(content, file):
        save({'half': torch.zeros(1000)}, file)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='No space left'):
        train(folder, 16, *EVERY, resume=folder / 'iter_12.pth')
    assert {path.name: path.read_bytes() for path in folder.glob('iter_*.pth')} == before
    assert not list(folder.glob('.*.part'))


def test_what_killed_writers_left_is_removed(trained, tmp_path):
    folder = copy_of(trained, tmp_path / 'left')
    part = folder / f'.iter_16.pth.{"0a" * 16}.part'
    part.write_bytes(b'half')
    own = folder / '.notes.part'
    own.write_text('mine')
    train(folder, 16, *EVERY, resume=folder / 'iter_12.pth')
    assert not part.exists() and own.exists()


def test_the_last_validation_is_repeated(trained, tmp_path):
    """A run that was stopped amid it had its last checkpoint and no metrics."""
    options = [
        'val_dataloader.batch_size=4', 'val_dataloader.dataset.num_samples=4',
        'model.sampler.num_steps=1',
    ]  # fmt: skip
    resumed = copy_of(trained, tmp_path / 'resumed')
    train(resumed, 12, *EVERY, *options, resume=resumed / 'iter_12.pth', validate=True)
    assert (resumed / 'metrics.json').is_file()
