"""Real images that pip installs: counts, splits, captions."""

import numpy as np
import pytest
import torch

from mmsparsedit.datasets.digits import digits_images
from mmsparsedit.datasets.openmoji import (
    GROUPS,
    OpenMoji,
    OpenMojiRequests,
    caption_of,
    group_of,
    openmoji_pictures,
)
from mmsparsedit.models import PatchPCA
from mmsparsedit.registry import DATASETS


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, labels = digits_images()
    theirs = load_digits()
    assert images.dtype == np.float32 and labels.dtype == np.int64
    assert np.array_equal(images, theirs.images / 8 - 1) and np.array_equal(labels, theirs.target)


def test_mnist_is_split_by_digit_and_always_alike():
    train, held_out = (
        DATASETS.build(dict(type='MNIST5000', _scope_='mmsparsedit', split=split))
        for split in ('train', 'held_out')
    )
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(held_out.labels).tolist() == [100] * 10
    item = held_out[0]
    assert item['inputs'].shape == (1, 28, 28) and item['label'] == held_out.labels[0]
    assert item['inputs'].min() == -1 and item['inputs'].max() > 0.9
    # real images that occur once stand on one side only
    sides = [{image.numpy().tobytes() for image in part.images} for part in (train, held_out)]
    assert len(sides[0] | sides[1]) == 5000 and not sides[0] & sides[1]


def test_openmoji_is_whole_pictures_with_names():
    characters, pictures = openmoji_pictures()
    assert len(characters) == len(pictures) > 1000 and pictures.shape[1:] == (64, 64, 3)
    edges = np.concatenate([pictures[:, [0, -1]].reshape(-1), pictures[:, :, [0, -1]].reshape(-1)])
    assert edges.min() > 250
    assert caption_of('😀') == 'grinning face, face'
    named = {
        '🐈': 'animal',
        '🍕': 'food',
        '🚌': 'place',
        '🔨': 'object',
        '♈': 'sign',
        '🌲': 'plant',
    }
    assert {character: GROUPS[group_of(character)] for character in named} == named
    train, held_out = OpenMoji('train'), OpenMoji('held_out')
    assert not set(train.characters) & set(held_out.characters)
    assert len(train) + len(held_out) == len(characters) and len(held_out) == len(characters) // 5
    item = train[characters.index('😀') - characters.index('😀') // 5]
    assert item['prompt'] == 'grinning face, face' and item['label'] == GROUPS.index('face')
    yellow = torch.tensor([1.0, 0.9, -0.6])
    assert ((item['inputs'] - yellow[:, None, None]).abs().amax(0) < 0.4).float().mean() > 0.15


def test_openmoji_requests_go_through_the_split():
    requests = OpenMojiRequests(num_samples=1000, split='held_out')
    asked = [requests[i]['prompt'] for i in range(len(requests))]
    known = {caption_of(character) for character in OpenMoji('held_out').characters}
    assert set(asked) == known and asked[: len(known)] != sorted(asked[: len(known)])


def test_openmoji_of_some_groups():
    faces = OpenMoji(groups=('face',))
    assert {faces[i]['label'] for i in range(len(faces))} == {GROUPS.index('face')}
    asked = OpenMojiRequests(num_samples=20, groups=('face',))
    assert all(asked[i]['prompt'].endswith(', face') for i in range(20))
    with pytest.raises(ValueError, match="got {'faces'}, expected some of"):
        OpenMoji(groups=('faces',))


def test_principal_components_of_patches():
    plants = dict(type='OpenMoji', groups=('plant',), _scope_='mmsparsedit')
    pixels = DATASETS.build(plants).inputs
    # all components: a rotation and a scale, which gives the pixels back
    whole = PatchPCA(plants, patch=2, channels=12)
    latents = whole.encode(pixels)
    assert latents.shape == (len(pixels), 12, 32, 32)
    torch.testing.assert_close(whole.decode(latents), pixels, atol=1e-4, rtol=0)
    # some: no mean, a variance of 1 over all, falling, and the error is what the others carried
    four = dict(type='PatchPCA', patch=2, channels=4, dataset=plants, _scope_='mmsparsedit')
    few = OpenMoji(groups=('plant',), autoencoder=four)
    assert few.metainfo['data_shape'] == few[0]['inputs'].shape == (4, 32, 32)
    variances = few.inputs.var(dim=(0, 2, 3), correction=0)
    assert abs(few.inputs.mean()) < 1e-4 and abs(variances.mean() - 1) < 1e-3
    assert (variances.diff() < 0).all()
    lost = (PatchPCA(plants, patch=2, channels=4).decode(few.inputs) - pixels).square().mean()
    scale = (pixels.sub(whole._fitted[0].view(1, 3, 2, 2).repeat(1, 1, 32, 32))).square().mean()
    share = latents.var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(lost, scale * share[4:].sum() / share.sum(), atol=1e-5, rtol=1e-3)
    with pytest.raises(ValueError, match=r'got images of shape \(1, 3, 5, 4\)'):
        whole.encode(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ValueError, match='13 channels for patches of 2 x 2, expected 1 to 12'):
        PatchPCA(plants, patch=2, channels=13)
