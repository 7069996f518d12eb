"""FVD with a TorchScript stand-in of I3D's call signature, on videos made here."""

import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from mmsparsedit.datasets import video_reader
from mmsparsedit.datasets.transforms import CorruptVideoError
from mmsparsedit.evaluation import videos as video_module
from mmsparsedit.evaluation.build import build_video_reference
from mmsparsedit.evaluation.features import I3DExtractor
from mmsparsedit.evaluation.metrics import FVD
from mmsparsedit.evaluation.videos import (
    GENERATED,
    REAL,
    ClipProtocol,
    VideoFolder,
    through_jpeg,
)
from mmsparsedit.utils.files import sha256_of

SIZE = 64
LENGTHS = {'a': 60, 'b': 48, 'c': 47, 'd': 100, 'e': 20, 'f': 75}


class StandIn(torch.nn.Module):
    """Called as I3D is: (N, C, F, H, W) floats in 0 ... 255 and three flags; features (N, 6)."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:
        assert rescale and resize and return_features
        assert x.dim() == 5 and x.shape[1] == 3 and x.dtype == torch.float32
        time = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)
        frames = x.mean(dim=[3, 4])  # (N, C, F)
        return torch.cat([frames.mean(dim=2), (frames * time).mean(dim=2)], dim=1)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp('i3d') / 'i3d_torchscript.pt'
    torch.jit.script(StandIn()).save(str(path))
    return path


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Videos that show the number of each frame as eight black or white stripes, its bits."""
    folder = tmp_path_factory.mktemp('videos')
    for name, length in LENGTHS.items():
        (folder / 'class').mkdir(exist_ok=True)
        writer = cv2.VideoWriter(
            str(folder / 'class' / f'{name}.mp4'),
            cv2.VideoWriter_fourcc(*'mp4v'),
            25,
            (SIZE, SIZE),
        )
        for frame in range(length):
            writer.write(stripes(frame))
        writer.release()
    return folder


def stripes(number, size=SIZE):
    """A frame (H, W, 3) that shows a number below 256; lossy coding does not change it."""
    bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8)
    return np.broadcast_to(255 * bits.repeat(size // 8)[:, None], (size, size, 3)).copy()


def shown(clip):
    """Numbers of the frames of a clip (F, 3, H, W)."""
    bits = clip.float().mean(dim=(1, 2)).unflatten(1, (8, -1)).mean(dim=2) > 127
    return (bits.int() * 2 ** torch.arange(8)).sum(dim=1).tolist()


def test_real_clips_take_every_third_frame_at_a_seeded_offset(videos):
    folder = VideoFolder(videos, REAL)
    # 47 and 20 frames are fewer than 16 x 3
    assert folder.left_out == ['class/c.mp4', 'class/e.mp4']
    assert folder.videos == ['class/a.mp4', 'class/b.mp4', 'class/d.mp4', 'class/f.mp4']
    for index, name in enumerate('abdf'):
        offset = folder.offsets[index]
        assert 0 <= offset <= LENGTHS[name] - 46
        clip = folder.clip(index)
        assert clip.shape == (16, 3, SIZE, SIZE) and clip.dtype == torch.uint8
        assert shown(clip) == [offset + 3 * frame for frame in range(16)]
    assert VideoFolder(videos, REAL).offsets == folder.offsets
    drawn = {tuple(VideoFolder(videos, ClipProtocol(seed=seed)).offsets) for seed in range(8)}
    assert len(drawn) > 4


@pytest.mark.parametrize('frames,offsets', [(46, None), (48, 3), (49, 4), (100, 55)])
def test_offsets_are_those_of_stylegan_v(frames, offsets, tmp_path, monkeypatch):
    """Uniform over 0 ... n - 46: the last frame of the clip may be the last of the video."""
    for index in range(4000):
        (tmp_path / f'{index}.mp4').touch()
    monkeypatch.setattr(video_module, 'video_length', lambda video: frames)
    if offsets is None:
        with pytest.raises(ValueError, match='the longest of 46 frames, expected 48'):
            VideoFolder(tmp_path, ClipProtocol(num_clips=None))
        return
    drawn = np.array(VideoFolder(tmp_path, ClipProtocol(num_clips=None)).offsets)
    counts = np.bincount(drawn, minlength=offsets)
    assert len(counts) == offsets and drawn.max() + 45 == frames - 1
    expected = len(drawn) / offsets
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < scipy.stats.chi2.ppf(0.999, offsets - 1)


def test_frames_pass_through_jpeg_on_both_sides(videos, detector, tmp_path):
    """As Latte's figures: the clips of the reference, and the samples by the metric itself."""
    protocol = ClipProtocol(frame_interval=1, random_offset=False, num_clips=2, jpeg_quality=75)
    plain = VideoFolder(videos, replace(protocol, jpeg_quality=None))
    noisy = torch.randint(0, 256, (2, 16, 3, SIZE, SIZE), generator=torch.manual_seed(0))
    clips = noisy.byte().permute(0, 1, 3, 4, 2).numpy()
    coded = np.stack([through_jpeg(clip, 75) for clip in clips])
    assert coded.shape == clips.shape and 5 < np.abs(coded.astype(int) - clips).mean() < 60
    file = io.BytesIO()
    Image.fromarray(clips[1, 3]).save(file, 'JPEG')  # Pillow's default is 75
    assert (np.asarray(Image.open(file)) == coded[1, 3]).all()
    through = VideoFolder(videos, protocol).clip(0)
    expected = through_jpeg(plain.clip(0).permute(0, 2, 3, 1).numpy(), 75)
    assert (through.permute(0, 2, 3, 1).numpy() == expected).all()

    seen = []
    extractor = I3DExtractor(detector, sha256=sha256_of(detector))
    metric = FVD(videos, protocol=protocol, extractor=extractor, cache_dir=tmp_path, device='cpu')
    monkey = metric.extractor
    metric.extractor = lambda samples: seen.append(samples) or monkey(samples)
    metric.process(None, [{'video': v.byte(), 'index': i} for i, v in enumerate(noisy)])
    assert (torch.cat(seen).permute(0, 1, 3, 4, 2).numpy() == coded).all()
    with pytest.raises(ValueError, match='jpeg_quality 0'):
        ClipProtocol(jpeg_quality=0)


def test_a_reference_of_another_covariance_is_refused(videos, detector, tmp_path):
    extractor = I3DExtractor(detector, sha256=sha256_of(detector))
    build_video_reference(VideoFolder(videos, REAL), extractor, tmp_path / 'new.npz')
    with np.load(tmp_path / 'new.npz') as file:
        arrays = dict(file)
    provenance = json.loads(str(arrays['provenance']))
    assert provenance.pop('covariance') == 'divided by N'
    np.savez(tmp_path / 'old.npz', **{**arrays, 'provenance': json.dumps(provenance)})
    with pytest.raises(ValueError, match='divided by N - 1.*build the reference again'):
        FVD(tmp_path / 'old.npz', extractor=extractor)


def test_generated_clips_start_at_the_first_frame(videos):
    folder = VideoFolder(videos, GENERATED)
    assert len(folder) == 6 and not folder.left_out
    assert all(shown(folder.clip(index)) == list(range(16)) for index in range(6))


def test_more_videos_than_clips_are_drawn_with_the_seed(videos):
    protocol = ClipProtocol(num_clips=2, seed=3)
    folder = VideoFolder(videos, protocol)
    assert len(folder) == 2
    assert folder.videos == VideoFolder(videos, protocol).videos
    drawn = {
        tuple(VideoFolder(videos, ClipProtocol(num_clips=2, seed=s)).videos) for s in range(10)
    }
    assert len(drawn) > 2
    assert REAL.num_clips == 2048 and REAL.frame_interval == 3 and REAL.num_frames == 16


def test_folders_of_frames_are_read_in_numerical_order(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        for frame in range(48):  # names that sort otherwise as text
            Image.fromarray(stripes(frame)).save(tmp_path / name / f'{frame}.png')
    folder = VideoFolder(tmp_path, ClipProtocol(size=16))
    assert len(folder) == 2 and folder.clip(0).shape == (16, 3, 16, 16)
    start = folder.offsets[0]
    assert shown(folder.clip(0)) == list(range(start, start + 48, 3))


def test_clips_are_read_by_the_reader_of_training(tmp_path, monkeypatch):
    """What decord cannot read PyAV does, and frames of two sizes are no video."""
    pytest.importorskip('av')
    writer = cv2.VideoWriter(
        str(tmp_path / 'a.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 25, (SIZE, SIZE)
    )
    for frame in range(16):
        writer.write(stripes(frame))
    writer.release()

    def fail(self, path):
        raise CorruptVideoError(path, 'no codec')

    monkeypatch.setattr(video_reader._Decord, '__init__', fail)
    assert shown(VideoFolder(tmp_path, GENERATED).clip(0)) == list(range(16))
    (tmp_path / 'a.mp4').unlink()
    (tmp_path / 'frames').mkdir()
    for frame in range(16):
        Image.new('RGB', (8, 8 + frame // 8)).save(tmp_path / 'frames' / f'{frame}.png')
    with pytest.raises(ValueError, match=r'frames, expected .* \(frames of different sizes'):
        VideoFolder(tmp_path, GENERATED).clip(0)


def test_centre_square_keeps_the_centre(tmp_path):
    (tmp_path / 'one').mkdir()
    frame = np.zeros((12, 20, 3), dtype=np.uint8)
    frame[:, 4:16] = 200
    for index in range(16):
        Image.fromarray(frame).save(tmp_path / 'one' / f'{index}.png')
    clip = VideoFolder(tmp_path, ClipProtocol(frame_interval=1, size=12)).clip(0)
    assert (clip == 200).all()


def direct_fvd(detector, real, generated):
    """Covariance over N and the eigenvalues of the product, on clips read one by one."""
    network = torch.jit.load(str(detector))
    sides = []
    for folder in (real, generated):
        clips = torch.stack([folder.clip(index) for index in range(len(folder))])
        x = clips.float().permute(0, 2, 1, 3, 4)
        features = network(x, rescale=True, resize=True, return_features=True).double().numpy()
        sides.append((features.mean(axis=0), np.cov(features, rowvar=False, bias=True)))
    (m1, s1), (m2, s2) = sides
    trace = np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).real.sum()
    return np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * trace


def as_videos(folder):
    return [{'video': folder.clip(index), 'index': index} for index in range(len(folder))]


def test_fvd_equals_the_direct_computation(videos, detector, tmp_path):
    generated = VideoFolder(videos, GENERATED)
    expected = direct_fvd(detector, VideoFolder(videos, REAL), generated)
    extractor = {'type': 'I3DExtractor', 'weights': str(detector), 'sha256': sha256_of(detector)}
    metric = FVD(videos, extractor=extractor, cache_dir=tmp_path, device='cpu', num_samples=6)
    for batch_size in (1, 4):
        samples = as_videos(generated)
        for start in range(0, 6, batch_size):
            metric.process(None, samples[start : start + batch_size])
        found = metric.evaluate(6)['video/fvd']
        assert found == pytest.approx(expected, rel=1e-6)
    recipe = metric.describe()
    assert recipe['num_samples'] == 6
    assert recipe['reference']['provenance']['count'] == 4
    assert recipe['reference']['provenance']['left_out_as_too_short'] == 2
    assert recipe['reference']['provenance']['protocol']['frame_interval'] == 3
    assert len(recipe['reference']['sha256']) == len(recipe['features']['sha256']) == 64


def test_fvd_against_a_built_reference(videos, detector, tmp_path):
    extractor = I3DExtractor(detector, sha256=sha256_of(detector))
    real, generated = VideoFolder(videos, REAL), VideoFolder(videos, GENERATED)
    build_video_reference(real, extractor, tmp_path / 'reference.npz')
    metric = FVD(tmp_path / 'reference.npz', extractor=extractor, device='cpu')
    metric.process(None, as_videos(generated))
    assert metric.evaluate(6)['video/fvd'] == pytest.approx(
        direct_fvd(detector, real, generated), rel=1e-6
    )
    with np.load(tmp_path / 'reference.npz', allow_pickle=False) as file:
        provenance = json.loads(str(file['provenance']))
    assert provenance['features'] == extractor.description and provenance['count'] == 4
    with pytest.raises(ValueError, match="'frame_interval': 1.*expected .*'frame_interval': 3"):
        FVD(tmp_path / 'reference.npz', protocol={'frame_interval': 1}, extractor=extractor)


def test_fvd_of_equal_moments_is_zero_and_of_shifted_means_the_square(detector, tmp_path):
    # clips of constant colour: the features move by 10 and by 10 x mean of 0 ... 15
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, 9)
    folder = tmp_path / 'real'
    for index, value in enumerate(grey):
        (folder / str(index)).mkdir(parents=True)
        for frame in range(16):
            Image.new('RGB', (8, 8), (int(value),) * 3).save(folder / str(index) / f'{frame}.png')
    metric = FVD(
        folder,
        protocol={'frame_interval': 1},
        extractor={'type': 'I3DExtractor', 'weights': str(detector), 'sha256': sha256_of(detector)},
        cache_dir=tmp_path / 'cache',
        device='cpu',
    )
    for shift in (0, 10):
        clips = [torch.full((16, 3, 8, 8), int(v) + shift, dtype=torch.uint8) for v in grey]
        metric.process(None, [{'video': c, 'index': i} for i, c in enumerate(clips)])
        expected = 3 * shift**2 + 3 * (shift * 7.5) ** 2
        assert metric.evaluate(9)['video/fvd'] == pytest.approx(expected, abs=0.05)


def test_refusals(videos, detector, tmp_path):
    extractor = {'type': 'I3DExtractor', 'weights': str(detector), 'sha256': sha256_of(detector)}
    with pytest.raises(ValueError, match='the longest of 100 frames, expected 160'):
        VideoFolder(videos, ClipProtocol(frame_interval=10))
    metric = FVD(videos, extractor=extractor, cache_dir=tmp_path, device='cpu')
    with pytest.raises(ValueError, match=r'got samples of 16 x 16 pixels, expected 64 x 64'):
        metric.process(None, [{'video': torch.zeros(16, 3, 16, 16, dtype=torch.uint8), 'index': 0}])
    with pytest.raises(ValueError, match='got videos of 8 frames, expected 16'):
        metric.process(None, [{'video': torch.zeros(8, 3, 64, 64, dtype=torch.uint8), 'index': 0}])
    with pytest.raises(ValueError, match='NaN or infinity in video 4'):
        metric.process(None, [{'video': torch.full((16, 3, 64, 64), torch.nan), 'index': 4}])
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'x.mp4').write_bytes(b'not a video')
    with pytest.raises(ValueError, match='x.mp4, expected a video: it is damaged'):
        VideoFolder(tmp_path / 'broken')
    (tmp_path / 'script.pt').write_bytes(b'not a script')
    with pytest.raises(ValueError, match='expected a TorchScript file'):
        I3DExtractor(tmp_path / 'script.pt', sha256=sha256_of(tmp_path / 'script.pt'))
