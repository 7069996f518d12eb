"""The image data set: order, labels, corrupt images, errors."""

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from mmsparsedit.registry import DATASETS

from photograph_folder import CORRUPT, NUM_GOOD, PHOTOGRAPHS

PIPELINE = [
    dict(type='LoadImage'),
    dict(type='CenterCropADM', size=16),
    dict(type='RandomFlip', prob=0.0),
    dict(type='PackImage'),
]


def build(root, **arguments):
    arguments = {'pipeline': PIPELINE, 'max_corrupt_share': 0.2, **arguments}
    return DATASETS.build(dict(type='ImageNet', data_root=str(root), **arguments))


def test_class_folders_in_the_order_of_image_folder(photographs):
    dataset, reference = build(photographs, num_classes=4), ImageFolder(photographs)
    assert dataset.metainfo['classes'] == tuple(reference.classes) == tuple(PHOTOGRAPHS)
    got = [
        (dataset.get_data_info(i)['img_path'], dataset.get_data_info(i)['label'])
        for i in range(len(dataset))
    ]
    assert got == reference.samples
    assert len(dataset) == NUM_GOOD + len(CORRUPT)


def test_list_equals_class_folders(photographs, tmp_path):
    folders = build(photographs)
    lines = [
        f'{folders.relative_path(i)} {folders.get_data_info(i)["label"]}\n'
        for i in range(len(folders))
    ]
    (tmp_path / 'list.txt').write_text(''.join(lines) + '\n')
    listed = build(photographs, ann_file=str(tmp_path / 'list.txt'), num_classes=4)
    assert listed.digest() == folders.digest()
    assert torch.equal(listed[0]['inputs'], folders[0]['inputs'])
    (tmp_path / 'list.txt').write_text('a path with spaces.jpg 7\nanother.jpg\n')
    with pytest.raises(ValueError, match="line 2: got 'another.jpg'"):
        build(photographs, ann_file=str(tmp_path / 'list.txt'))
    (tmp_path / 'list.txt').write_text('a path with spaces.jpg 7\n')
    with pytest.raises(ValueError, match='labels from 7 to 7, expected 0 to 3'):
        build(photographs, ann_file=str(tmp_path / 'list.txt'), num_classes=4)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_corrupt_images_are_replaced_and_counted_over_workers(photographs, num_workers):
    dataset = build(photographs)
    loader = DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=default_collate)
    batches = list(loader)
    assert dataset.corrupt_images() == CORRUPT
    assert sum(len(batch['label']) for batch in batches) == len(dataset)
    inputs = torch.cat([batch['inputs'] for batch in batches])
    assert inputs.shape[1:] == (3, 16, 16) and inputs.abs().max() <= 1
    for index in range(len(dataset)):
        if dataset.relative_path(index) in CORRUPT:
            assert torch.equal(inputs[index], inputs[(index + 1) % len(dataset)])


def test_too_many_corrupt_images_end_the_run(photographs):
    dataset = build(photographs, max_corrupt_share=0.1)  # 2 of 20 are allowed
    with pytest.raises(ValueError, match=r'got 3 corrupt images of 20, expected at most 10.00%'):
        for index in range(len(dataset)):
            dataset[index]


def test_a_folder_of_corrupt_images(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in 'xyz':
        (tmp_path / 'a' / f'{name}.jpg').write_text('no')
    with pytest.raises(
        ValueError, match='not one of the images of .* can serve: 3 images: 3 corrupt'
    ):
        build(tmp_path, max_corrupt_share=1.0)[1]


def test_errors_at_construction(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder of images'):
        build(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match='names no images'):
        build(tmp_path)
    with pytest.raises(ValueError, match='got 4 class folders, expected 1000'):
        build(photographs, num_classes=1000)
    with pytest.raises(FileNotFoundError, match='there is no list'):
        build(photographs, ann_file=str(tmp_path / 'none.txt'))
    with pytest.raises(ValueError, match='max_corrupt_share=2'):
        build(photographs, max_corrupt_share=2)
    with pytest.raises(IndexError, match='20 images, got index 20'):
        build(photographs)[20]


def test_random_access_is_repeatable(photographs):
    dataset = build(photographs)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    first = {i: dataset[i]['inputs'] for i in order}
    assert all(torch.equal(dataset[i]['inputs'], first[i]) for i in range(len(dataset)))
