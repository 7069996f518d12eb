"""No room for a file, at every writer: one line that names it, and the older file stays whole.

A limit of the size of files stands for the full disk: the system refuses what goes beyond it.
"""

import contextlib
import json
import resource
import sys
import types

import matplotlib
import numpy as np
import pytest
import torch

from mmsparsedit.apis.launch import one_line
from mmsparsedit.apis.run_report import write_report
from mmsparsedit.datasets.caption_features import write_null_caption
from mmsparsedit.datasets.latent_format import save_shard, write_index
from mmsparsedit.engine.checkpoint_files import point_to
from mmsparsedit.evaluation.cache import save_npz
from mmsparsedit.evaluation.recipe import write_result
from mmsparsedit.evaluation.store import SampleStore
from mmsparsedit.models.checkpoints import write_checkpoint
from mmsparsedit.utils.files import atomic_write
from mmsparsedit.visualization import save_figure, save_gif, save_grid, save_image, save_mp4
from mmsparsedit.visualization.pictures import to_pil

ROOM = 32  # bytes
IMAGE = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
VIDEO = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)


@contextlib.contextmanager
def no_room():
    before, compiled = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python would publish the cut half of what it compiled
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiled


def shard(path):
    save_shard(path.parent, 0, {'mean': torch.zeros(2, 4, 2, 2), 'label': torch.arange(2)})


def index(path):
    write_index(
        path.parent, shards=[], latent_shape=(4, 2, 2), dtype='fp32', kind='moments',
        flipped=False, scale_factor=1.0, classes=[], provenance={},
    )  # fmt: skip


def null_caption(path):
    encoded = torch.ones(1, 6, 4), torch.ones(1, 6)
    write_null_caption(path, types.SimpleNamespace(encode=lambda prompts, device: encoded))


def samples(path):
    store = SampleStore.__new__(SampleStore)  # its card was written while there was room
    store.folder = path.parent
    store.add([dict(image=IMAGE, index=0)])


def samples_as_npz(path):
    store = SampleStore(path.parent / 'store')
    store.export_npz(path)


def report(path):
    write_report([path.parent / 'run'], path)


def figure(path):
    drawn = matplotlib.figure.Figure()
    drawn.subplots().plot([1, 2])
    save_figure(path, drawn)


WRITERS = {
    'iter_4.pth': lambda p: write_checkpoint({'a': torch.zeros(1000)}, p),
    'net.safetensors': lambda p: write_checkpoint({'a': torch.zeros(1000)}, p),
    'last_checkpoint': lambda p: point_to(p.parent, p.parent / 'a_long_name_of_a_checkpoint.pth'),
    'shard-00000.safetensors': shard,
    'index.json': index,
    'null_caption.npz': null_caption,
    'reference.npz': lambda p: save_npz(p, mu=np.zeros(100)),
    '000000.png': samples,
    'samples.npz': samples_as_npz,
    'metrics.json': lambda p: write_result(p, {'FID': 1.0}, {'versions': {}, 'sampling': {}}),
    'report.html': report,
    'image.png': lambda p: save_image(p, IMAGE, {'seed': 0}),
    'grid.png': lambda p: save_grid(p, to_pil(IMAGE)),
    'h264.mp4': lambda p: save_mp4(p, VIDEO, codec='h264', cell=1),
    'mpeg4.mp4': lambda p: save_mp4(p, VIDEO, codec='mpeg4', cell=1),
    'video.gif': lambda p: save_gif(p, VIDEO, cell=1),
    'figure.png': figure,
}


@pytest.mark.parametrize('name', WRITERS)
def test_no_room_is_one_line_and_the_older_file_stays(tmp_path, name):
    if name == 'h264.mp4':
        pytest.importorskip('av')
    path = tmp_path / name
    SampleStore(tmp_path / 'store', {'seed': 0}).add([dict(image=IMAGE, index=0)])
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/metrics.json').write_text(json.dumps({'metrics': {'FID': 1.0}}))
    path.write_bytes(b'old')
    with pytest.raises(OSError) as caught, no_room():
        WRITERS[name](path)
    assert path.read_bytes() == b'old' and not list(tmp_path.rglob('.*'))
    assert name in one_line(caught.value)
    WRITERS[name](path)  # and with room it is written
    assert path.stat().st_size > ROOM and not list(tmp_path.rglob('.*'))


def test_a_full_disk_is_not_hidden_by_what_a_library_says(tmp_path):
    with pytest.raises(OSError, match=r'File too large: .*index\.json'), no_room():
        with atomic_write(tmp_path / 'index.json') as beside:
            try:
                beside.write_bytes(bytes(100))
            except OSError as error:
                raise RuntimeError('unexpected pos 704 vs 598') from error
