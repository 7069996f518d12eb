"""What a user can get wrong on a command line: one line that says it, never a traceback."""

import json
import pickle
import re
import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from misuses import MISUSES
from PIL import Image
from safetensors.torch import save_file

from mmsparsedit.datasets.latent_format import save_shard, write_index
from mmsparsedit.engine.checkpoint_files import locked

from runs import DENSE, ROOT, SPARSE, TINY

TINY_NETWORK = [option for option in TINY if option.startswith('model.network')]


class Harm:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


@pytest.fixture(scope='module')
def place(checkpoint, tmp_path_factory):
    """Files of every wrong kind; ``harm`` is what they write if they run."""
    root = tmp_path_factory.mktemp('misuses')
    harm = root / 'harm'
    p = SimpleNamespace(harm=harm, checkpoint=checkpoint, out=root / 'out')
    p.config, p.dense = ROOT / SPARSE, ROOT / DENSE
    p.tiny = '--cfg-options ' + ' '.join(TINY_NETWORK)
    p.folder = root / 'folder'
    p.folder.mkdir()
    p.file, p.text, p.picture = root / 'file', root / 'text.txt', root / 'picture.png'
    p.file.touch()
    p.text.write_text('some words\n')
    Image.new('RGB', (8, 8)).save(p.picture)
    p.images, p.frames = root / 'images', root / 'frames'
    for folder in (p.images, p.frames / 'a'):
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new('RGB', (8, 8), (i, 0, 0)).save(folder / f'{i}.png')

    data = checkpoint.read_bytes()
    p.cut, p.flipped = root / 'cut.pth', root / 'flipped.pth'
    p.cut.write_bytes(data[: len(data) // 2])
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    weight = next(v for v in state.values() if v.numel() > 100).numpy().tobytes()
    position = data.index(weight) + 43
    p.flipped.write_bytes(data[:position] + bytes([data[position] ^ 64]) + data[position + 1 :])
    p.nan = root / 'nan.pth'
    key = next(key for key in state if key.endswith('.weight'))
    torch.save({**state, key: torch.full_like(state[key], torch.nan)}, p.nan)
    whole = torch.load(checkpoint, weights_only=True)
    averages = whole['ema_state_dict']
    not_a_number = {k: v * torch.nan if v.is_floating_point() else v for k, v in averages.items()}
    for name, kept in dict(
        no_averages=None,
        few_averages={k: v for k, v in averages.items() if not k.endswith(key)},
        nan_averages=not_a_number,
    ).items():
        setattr(p, name, root / f'{name}.pth')
        rest = {k: v for k, v in whole.items() if k != 'ema_state_dict'}
        torch.save({**rest, **({'ema_state_dict': kept} if kept else {})}, root / f'{name}.pth')
    p.full = root / 'full.json'
    p.full.symlink_to('/dev/full')
    p.evil, p.pickle = root / 'evil.pth', root / 'table.pkl'
    torch.save({'state_dict': Harm(harm)}, p.evil)
    p.pickle.write_bytes(pickle.dumps(Harm(harm)))
    p.script = root / 'i3d_torchscript.pt'
    torch.jit.script(torch.nn.Identity()).save(str(p.script))

    def config(name, text):
        (root / name).write_text(text)
        return root / name

    p.broken_config = config('broken.py', 'model = dict(\n')
    p.failing_config = config('failing.py', 'x = 1 / 0\n')
    p.orphan_config = config('orphan.py', "_base_ = './no_base.py'\n")
    p.yaml_config = config('evil.yaml', f'x: !!python/object/apply:os.mknod ["{harm}"]\n')
    p.extract = config(
        'extract.py',
        f"extract = dict(dataset=dict(type='ImageNet', data_root={str(root)!r}),"
        "autoencoder=dict(type='DiffusersVAE', pretrained='a/b'))\n",
    )

    def run(name, text, metrics='{"metrics": {"a/b": 1.0}}'):
        folder = root / name
        folder.mkdir()
        (folder / 'digits.py').write_text(text)
        (folder / 'last_checkpoint').write_text('iter_4.pth')
        (folder / 'metrics.json').write_text(metrics)
        return folder

    p.run = run('run', 'model = dict()\n')
    p.evil_run = run('evil_run', f'import os\nos.mknod({str(harm)!r})\n')
    p.odd_run = run(
        'odd_run', f"model = dict(type='os.system', command='touch {harm}')\n"
        'val_dataloader = dict(dataset=dict())\n',
    )  # fmt: skip
    p.damaged_run = run('damaged_run', 'model = dict()\n', '{"metrics": ')

    p.latents, p.damaged_latents = root / 'latents', root / 'damaged_latents'
    for folder in (p.latents, p.damaged_latents):
        folder.mkdir()
        tensors = {'mean': torch.zeros(2, 4, 2, 2), 'logvar': torch.zeros(2, 4, 2, 2)}
        shard = save_shard(folder, 0, {**tensors, 'label': torch.zeros(2, dtype=torch.int64)})
        write_index(
            folder, shards=[shard], latent_shape=(4, 2, 2), dtype='fp32', kind='moments',
            flipped=False, scale_factor=1.0, classes=[], provenance={},
        )  # fmt: skip
    index = p.damaged_latents / 'index.json'
    index.write_text(index.read_text().replace('"scale_factor": 1.0', '"scale_factor": 1.5'))
    p.damaged_index = root / 'diffusers'
    p.damaged_index.mkdir()
    save_file({}, p.damaged_index / 'a.safetensors')
    stem = 'diffusion_pytorch_model.safetensors'
    (p.damaged_index / f'{stem}.index.json').write_text(json.dumps({'weight_map': {'a': '../x'}}))
    p.held = root / 'held'
    with locked(p.held):
        yield p


@pytest.mark.parametrize('tool,line,expected', MISUSES, ids=lambda value: value.split('/')[-1])
def test_misuse_is_one_line(tool, line, expected, place, tmp_path, monkeypatch, capfd):
    arguments = line.format(**vars(place)).replace(str(place.out), str(tmp_path / 'out')).split()
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    error = capfd.readouterr().err
    assert end.value.code not in (0, None)
    assert 'Traceback' not in error
    assert expected in error
    assert len(told(error)) == 1, error
    assert not place.harm.exists()


def told(error):
    """Lines of stderr without the usage that argparse shows and without warnings of libraries."""
    error = re.sub(r'\Ausage: .*?(?=^\S*: error: )', '', error, flags=re.DOTALL | re.MULTILINE)
    warning = re.compile(r'.*Warning: |  warnings\.warn|  ')
    return [line for line in error.splitlines() if line.strip() and not warning.match(line)]
