"""Captioned folders, prompts, PixArt's feature formats, text features in shards."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmsparsedit.datasets import (
    SAM,
    CaptionedDigits,
    CaptionedDigitsRequests,
    CaptionedImages,
    CaptionedLatents,
    PixArtJson,
    PromptRequests,
)
from mmsparsedit.datasets.caption_features import (
    CaptionFeatures,
    caption_settings,
    extract_captions,
)
from mmsparsedit.datasets.captioned_digits import DigitPainter, Scene
from mmsparsedit.datasets.digits import digits_images
from mmsparsedit.models import HashTextEncoder

ROOT = Path(__file__).parents[2]
PIPELINE = [dict(type='LoadImage'), dict(type='PackImage')]


def image(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (value, value, value)).save(path)


def run_tool(monkeypatch, capsys, name: str, *args) -> tuple[int, str]:
    """Exit status and text of a tool of ``tools/dataset_converters``."""
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / 'tools' / 'dataset_converters' / name), run_name='__main__')
    code = stopped.value.code
    text = capsys.readouterr()
    return (1, text.err) if code else (0, text.out)


# -- captioned images --------------------------------------------------------------------------


def test_text_files_beside_images(tmp_path):
    for i, name in enumerate(('b/x.png', 'a.jpg', 'b/y.webp')):
        image(tmp_path / name, 100 * i)
        text = (tmp_path / name).with_suffix('.txt')
        text.write_bytes('\ufeff Ein Haus, größer\n'.encode() if i == 0 else b'caption %d' % i)
    dataset = CaptionedImages(str(tmp_path), PIPELINE)
    assert [dataset.caption(i) for i in range(3)] == ['caption 1', 'Ein Haus, größer', 'caption 2']
    item = dataset[1]
    assert item['prompt'] == 'Ein Haus, größer' and item['label'] == 1
    torch.testing.assert_close(item['inputs'], torch.full((3, 8, 8), -1.0))
    assert dataset.skipped == []


def test_unusable_captions_are_counted(tmp_path):
    for name in ('good', 'empty', 'latin', 'none'):
        image(tmp_path / 'images' / f'{name}.jpg')
    captions = tmp_path / 'captions'
    captions.mkdir()
    (captions / 'good.txt').write_text('a cat')
    (captions / 'empty.txt').write_text(' \n')
    (captions / 'latin.txt').write_bytes('Müll'.encode('latin-1'))
    layout = dict(image_dir='images', caption_dir='captions')
    dataset = CaptionedImages(str(tmp_path), PIPELINE, **layout, max_skipped_share=0.8)
    assert len(dataset) == 1
    assert dataset.skipped == [
        dict(path='images/empty.jpg', reason='the caption is empty'),
        dict(path='images/latin.jpg', reason='the caption is not UTF-8 (byte 1)'),
        dict(path='images/none.jpg', reason='the image has no caption'),
    ]
    with pytest.raises(ValueError, match='3 of 4 images have no usable caption.*max_skipped_share'):
        CaptionedImages(str(tmp_path), PIPELINE, **layout)


def test_sam_layout_takes_the_listed_stems(tmp_path):
    for stem in ('sa_1', 'sa_2', 'sa_3'):
        image(tmp_path / 'images' / f'{stem}.jpg')
        (tmp_path / 'captions').mkdir(exist_ok=True)
        (tmp_path / 'captions' / f'{stem}.txt').write_text(f'caption of {stem}')
    (tmp_path / 'partition').mkdir()
    (tmp_path / 'partition' / 'part0.txt').write_text('sa_3\nsa_1\n\n')
    layout = dict(image_dir='images', caption_dir='captions')
    dataset = CaptionedImages(str(tmp_path), **layout, partitions=['partition/part0.txt'])
    assert [dataset.caption(i) for i in range(2)] == ['caption of sa_3', 'caption of sa_1']
    with pytest.raises(FileNotFoundError, match='part9.txt'):
        CaptionedImages(str(tmp_path), **layout, partitions=['partition/part9.txt'])


def test_json_lines_and_json_list(tmp_path):
    image(tmp_path / 'a.png')
    image(tmp_path / 'b.png')
    lines = [{'file_name': 'a.png', 'text': 'first'}, {'path': 'b.png', 'caption': 'zweiter'}]
    (tmp_path / 'captions.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n\n')
    dataset = CaptionedImages(str(tmp_path), PIPELINE, ann_file='captions.jsonl')
    assert [dataset[i]['prompt'] for i in range(2)] == ['first', 'zweiter']
    entries = [
        {'path': 'a.png', 'prompt': 'first', 'ratio': 1.0},
        {'path': 'b.png', 'prompt': 'too long a strip', 'ratio': 4.5},
    ]
    (tmp_path / 'data_info.json').write_text(json.dumps(entries))
    dataset = CaptionedImages(str(tmp_path), ann_file='data_info.json')
    assert [dataset.caption(i) for i in range(len(dataset))] == ['first']
    (tmp_path / 'bad.jsonl').write_text('{"file_name": "a.png", "text": "ok"}\n{oops\n')
    with pytest.raises(ValueError, match=r'bad.jsonl, line 2 is no JSON'):
        CaptionedImages(str(tmp_path), ann_file='bad.jsonl')
    with pytest.raises(FileNotFoundError, match='one JSON object per line'):
        CaptionedImages(str(tmp_path), ann_file='absent.jsonl')
    with pytest.raises(FileNotFoundError, match='no folder of captioned images'):
        CaptionedImages(str(tmp_path / 'absent'))


def test_prompts(tmp_path):
    (tmp_path / 'p.txt').write_text('a cat\n\n  a dog \n')
    requests = PromptRequests(str(tmp_path / 'p.txt'), num_samples=3, seed=2)
    assert [requests[i]['prompt'] for i in range(3)] == ['a cat', 'a dog', 'a cat']
    assert requests[1] == dict(index=1, seed=2 * 2**32 + 1, prompt='a dog')
    assert len(PromptRequests(['x', 'y'])) == 2
    (tmp_path / 'e.txt').write_text('\n')
    with pytest.raises(ValueError, match='holds no prompt'):
        PromptRequests(str(tmp_path / 'e.txt'))
    with pytest.raises(FileNotFoundError, match='file of prompts'):
        PromptRequests(str(tmp_path / 'absent.txt'))


# -- scenes of digits --------------------------------------------------------------------------


def test_captions_are_honest():
    assert Scene((7, 3), (False, True)).caption == 'a seven to the left of a small three'
    assert Scene((8, 8), (False, True)).caption == 'an eight to the left of a small eight'
    images, labels = digits_images()
    painter = DigitPainter(images, labels)
    rng = np.random.default_rng(0)
    for scene in (Scene((1, 0), (False, False)), Scene((4, 9), (True, False))):
        picture = painter.paint(scene, rng)
        for half, digit, small in zip(
            np.split(picture, 2, axis=1), scene.digits, scene.small, strict=True
        ):
            # an unchanged scan of the digit stands there, or one shrunk to 6 x 6
            found = any((half == scan).all() for scan in images[labels == digit])
            assert found != small
            rows = np.flatnonzero((half > -1).any(axis=1))
            assert rows[-1] - rows[0] < (6 if small else 8)


def test_scenes_are_a_function_of_seed_and_number():
    few, many = CaptionedDigits(5, seed=3), CaptionedDigits(9, seed=3)
    assert few.scenes == many.scenes[:5]
    np.testing.assert_array_equal(few.pictures, many.pictures[:5])
    assert CaptionedDigits(5, seed=4).scenes != few.scenes
    requests = CaptionedDigitsRequests(50, seed=1)
    item = requests[49]
    assert item['prompt'] == requests.scenes[49].caption
    assert (item['left'], item['right']) == requests.scenes[49].digits


@pytest.mark.parametrize('captions', ['jsonl', 'txt'])
def test_scenes_as_files_are_the_same(tmp_path, monkeypatch, capsys, captions):
    out = tmp_path / 'scenes'
    args = (out, '--num-scenes', 6, '--captions', captions)
    code, text = run_tool(monkeypatch, capsys, 'make_captioned_digits.py', *args)
    assert code == 0 and '6 scenes' in text
    ours = CaptionedDigits(6)
    where = dict(ann_file='captions.jsonl') if captions == 'jsonl' else dict(caption_dir='captions')
    dataset = CaptionedImages(str(out), PIPELINE, image_dir='images', **where)
    for i in range(6):
        assert dataset[i]['prompt'] == ours[i]['prompt']
        torch.testing.assert_close(dataset[i]['inputs'][:1], ours[i]['inputs'], rtol=0, atol=1e-6)
    code, text = run_tool(monkeypatch, capsys, 'make_captioned_digits.py', *args)
    assert code == 1 and 'exists' in text


def test_metric_reads_real_scenes():
    """Real scenes score what the classifier scores; exchanged captions are told apart."""
    from mmsparsedit.evaluation.captioned_digits import CaptionedDigitsMetric

    data = CaptionedDigits(400, seed=5)
    metric, exchanged = CaptionedDigitsMetric(), CaptionedDigitsMetric()
    for i, scene in enumerate(data.scenes):
        left, right = scene.digits
        picture = torch.from_numpy(data.pictures[i])[None]
        sample = dict(image=picture, index=i, left=left, right=right)
        metric.process({}, [sample])
        exchanged.process({}, [{**sample, 'left': right, 'right': left}])
    scores, changed = metric.compute_metrics(metric.results), None
    changed = exchanged.compute_metrics(exchanged.results)
    assert scores['in_order'] > 90 and scores['exchanged'] < 2
    equal = 100 * np.mean([scene.digits[0] == scene.digits[1] for scene in data.scenes])
    assert changed['in_order'] < equal + 5 and changed['exchanged'] > 80
    assert scores['frechet'] < 2 * scores['frechet_real'] + 5
    assert scores['real'] > 85


# -- PixArt's features -------------------------------------------------------------------------

WIDTH = 16


def write_sam(root: Path, lengths=(3, 7, 5)) -> None:
    rng = np.random.default_rng(0)
    for folder in ('partition', 'caption_feature_wmask', 'img_vae_feature/train_vae_256/noflip'):
        (root / folder).mkdir(parents=True)
    for i, length in enumerate(lengths):
        mask = (np.arange(8) < length).astype(np.int64)[None]
        feature = rng.standard_normal((1, 8, WIDTH)).astype(np.float16)
        path = root / 'caption_feature_wmask' / f'sa_{i}.npz'
        np.savez(path, caption_feature=feature, attention_mask=mask)
        moments = np.concatenate([rng.standard_normal((2, 4, 4)), rng.random((2, 4, 4)) + 0.1])
        latent = root / 'img_vae_feature/train_vae_256/noflip' / f'sa_{i}.npy'
        np.save(latent, moments.astype(np.float32))
    stems = ''.join(f'sa_{i}\n' for i in range(len(lengths)))
    (root / 'partition' / 'part0.txt').write_text(stems)


FEATURES = dict(caption_channels=WIDTH, max_length=8, latent_shape=(2, 4, 4))


def test_sam_features_are_read_as_they_are(tmp_path):
    write_sam(tmp_path)
    dataset = SAM(str(tmp_path), ['part0.txt'], **FEATURES)
    assert len(dataset) == 3
    item = dataset[1]
    stored = np.load(tmp_path / 'img_vae_feature/train_vae_256/noflip/sa_1.npy')
    mean, log_variance = item['inputs'].chunk(2)
    np.testing.assert_array_equal(mean, stored[:2])
    np.testing.assert_allclose((0.5 * log_variance).exp(), stored[2:], rtol=1e-5)
    feature = np.load(tmp_path / 'caption_feature_wmask/sa_1.npz')['caption_feature']
    np.testing.assert_array_equal(item['y'], feature[0].astype(np.float32))
    assert item['mask'].tolist() == [1] * 7 + [0]
    batch = torch.utils.data.default_collate([dataset[i] for i in range(3)])
    assert {k: tuple(v.shape) for k, v in batch.items()} == dict(
        inputs=(3, 4, 4, 4), y=(3, 8, WIDTH), mask=(3, 8)
    )


def test_shorter_longer_and_maskless_features(tmp_path):
    write_sam(tmp_path)
    path = tmp_path / 'caption_feature_wmask' / 'sa_0.npz'
    np.savez(path, caption_feature=np.ones((1, 5, WIDTH)))  # no mask: all valid
    item = SAM(str(tmp_path), **FEATURES)[0]
    assert item['mask'].tolist() == [1] * 5 + [0] * 3
    assert item['y'].sum(1).tolist() == [WIDTH] * 5 + [0] * 3
    np.savez(path, caption_feature=np.ones((1, 300, WIDTH)), attention_mask=np.ones((1, 300)))
    item = SAM(str(tmp_path), **FEATURES)[0]
    assert item['y'].shape == (8, WIDTH) and item['mask'].sum() == 8


def test_unreadable_features_are_counted_and_wrong_ones_named(tmp_path):
    write_sam(tmp_path)
    damaged = tmp_path / 'caption_feature_wmask' / 'sa_1.npz'
    damaged.write_bytes(damaged.read_bytes()[:100])
    dataset = SAM(str(tmp_path), **FEATURES, max_skipped_share=0.4)
    torch.testing.assert_close(dataset[1]['inputs'], dataset[2]['inputs'], rtol=0, atol=0)
    assert dataset.num_damaged == 1
    (tmp_path / 'img_vae_feature/train_vae_256/noflip/sa_0.npy').unlink()
    with pytest.raises(
        ValueError, match='got 2 unreadable items of 3, expected at most 40.00%.*max_skipped_share'
    ):
        _read_all(SAM(str(tmp_path), **FEATURES, max_skipped_share=0.4))
    other = {**FEATURES, 'caption_channels': 32}
    with pytest.raises(ValueError, match=r'sa_2.npz: got text features of shape \(8, 16\).*32'):
        SAM(str(tmp_path), **other, max_skipped_share=1.0)
    other = {**FEATURES, 'latent_shape': (2, 8, 8)}
    with pytest.raises(ValueError, match=r'got latents of shape \(4, 4, 4\), expected \(4, 8, 8\)'):
        SAM(str(tmp_path), **other, max_skipped_share=1.0)
    with pytest.raises(FileNotFoundError, match='no folder of features'):
        SAM(str(tmp_path / 'absent'))


def _read_all(dataset) -> list:
    return [dataset[i] for i in range(len(dataset))]


def test_json_variant(tmp_path):
    write_sam(tmp_path)
    entries = [
        dict(path='sa/0.png', prompt='x', ratio=0.5, height=512, width=1024),
        dict(path='sa/1.png', prompt='y', ratio=5.0, height=100, width=500),
    ]
    (tmp_path / 'partition' / 'data_info.json').write_text(json.dumps(entries))
    folders = dict(
        latent_dir='img_vae_feature/train_vae_256/noflip', text_dir='caption_feature_wmask'
    )
    dataset = PixArtJson(str(tmp_path), **folders, **FEATURES)
    assert len(dataset) == 1
    assert dataset[0]['img_hw'].tolist() == [512.0, 1024.0]
    assert dataset[0]['aspect_ratio'].tolist() == [0.5]
    torch.testing.assert_close(
        dataset[0]['y'], SAM(str(tmp_path), **FEATURES)[0]['y'], rtol=0, atol=0
    )


# -- features of this package ------------------------------------------------------------------


def captioned_folder(root: Path, count: int = 7) -> CaptionedImages:
    for i in range(count):
        image(root / f'{i}.png', 30 * i)
        (root / f'{i}.txt').write_text(' '.join(f'word{k}' for k in range(i + 1)))
    return CaptionedImages(str(root), PIPELINE)


def test_shards_give_back_what_the_encoder_gave(tmp_path):
    dataset, encoder = captioned_folder(tmp_path / 'images'), HashTextEncoder(WIDTH, 6)
    settings = caption_settings(dataset, encoder, 'hash', dtype='fp32', shard_size=3)
    out = tmp_path / 'features'
    # two processes, one after the other; the second finishes the folder
    assert not extract_captions(dataset, encoder, out, settings, rank=1, world_size=2)
    with pytest.raises(FileNotFoundError, match='continues where it stopped'):
        CaptionFeatures(out, WIDTH, 6)
    assert extract_captions(dataset, encoder, out, settings, rank=0, world_size=2, batch_size=2)
    features = CaptionFeatures(out, WIDTH, 6)
    assert len(features) == 7
    y, mask = encoder.encode([dataset.caption(i) for i in range(7)])
    for i in range(7):
        torch.testing.assert_close(features[i][0], y[i], rtol=0, atol=0)
        torch.testing.assert_close(features[i][1], mask[i], rtol=0, atol=0)
    cut = CaptionFeatures(out, WIDTH, 4)[6]
    assert cut[1].sum() == 4
    with pytest.raises(ValueError, match=r'got text features of width 16 \(hash\), expected 32'):
        CaptionFeatures(out, 32, 6)
    with pytest.raises(ValueError, match='other settings'):
        other = caption_settings(dataset, encoder, 'hash', dtype='bf16', shard_size=3)
        extract_captions(dataset, encoder, out, other)


def test_latents_find_their_captions(tmp_path, small_vae, monkeypatch, capsys):
    """Both tools on one config, a corrupt image in between, and the data set of both."""
    dataset = captioned_folder(tmp_path / 'images')
    (tmp_path / 'images' / '2.png').write_bytes(b'no image')
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
model = dict(
    text_encoder=dict(type='HashTextEncoder', channels={WIDTH}, max_length=6),
    autoencoder=dict(type='DiffusersVAE', pretrained={str(small_vae)!r}),
)
extract = dict(
    dataset=dict(
        type='CaptionedImages',
        data_root={str(tmp_path / 'images')!r},
        pipeline=[dict(type='LoadImage'), dict(type='PackImage')],
        max_corrupt_share=0.5,
    ),
    num_workers=0,
)
"""
    )
    text, latents = tmp_path / 'text', tmp_path / 'latents'
    args = (config, '--out', text, '--shard-size', 4)
    code, said = run_tool(monkeypatch, capsys, 'extract_text_features.py', *args)
    assert code == 0 and '7 captions' in said
    args = (config, '--out', latents, '--no-flip', '--device', 'cpu')
    code, said = run_tool(monkeypatch, capsys, 'extract_latents.py', *args)
    assert code == 0, said
    shape = dict(caption_channels=WIDTH, max_length=6)
    both = CaptionedLatents(str(latents), str(text), **shape)
    assert len(both) == 6  # without the corrupt one
    assert [int(item['mask'].sum()) for item in _read_all(both)] == [2, 3, 5, 6, 6, 6]
    y, _ = HashTextEncoder(WIDTH, 6).encode([dataset.caption(3)])
    torch.testing.assert_close(both[2]['y'], y[0].bfloat16().float(), rtol=0, atol=0)
    assert set(both[0]) == {'inputs', 'y', 'mask'}
    null = np.load(text / 'null_caption.npz')
    assert null['caption_feature'].shape == (1, 6, WIDTH) and null['attention_mask'].sum() == 1
    (tmp_path / 'images' / '0.txt').write_text('another caption')
    run_tool(monkeypatch, capsys, 'extract_text_features.py', config, '--out', tmp_path / 'new')
    with pytest.raises(ValueError, match='different images or captions'):
        CaptionedLatents(str(latents), str(tmp_path / 'new'), **shape)
