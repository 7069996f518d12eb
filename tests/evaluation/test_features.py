"""The Inception: order, branch, one pass, both weight files, equality with its library."""

import numpy as np
import pytest
import torch

from mmsparsedit.evaluation import features as module
from mmsparsedit.evaluation.features import InceptionExtractor, RandomInception, flatten_spatial
from mmsparsedit.evaluation.inception_weights import (
    random_inception_weights,
    read_inception_weights,
)
from mmsparsedit.evaluation.statistics import FeatureStatistics, frechet_distance
from mmsparsedit.evaluation.weight_files import INCEPTION_FILES, find_weights
from mmsparsedit.registry import TASK_UTILS
from mmsparsedit.utils.files import sha256_of


@pytest.fixture(scope='module')
def state():
    return random_inception_weights(0)


@pytest.fixture(scope='module')
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'weights-inception-2015-12-05-6726825d.pth'
    torch.save(state, path)
    return path


@pytest.fixture(scope='module')
def extractor(weights):
    return InceptionExtractor(weights, sha256=sha256_of(weights))


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_spatial_features_are_flattened_with_channels_last():
    branch = torch.arange(7 * 17 * 17, dtype=torch.float32).reshape(1, 7, 17, 17)
    flat = flatten_spatial(branch)
    assert flat.shape == (1, 2023)
    # the first seven numbers are the seven channels of the first pixel
    assert flat[0, :7].tolist() == [float(channel * 289) for channel in range(7)]
    assert flat[0, 7].item() == 1.0
    assert not torch.equal(flat, branch.flatten(1))


def test_spatial_features_are_the_1x1_branch_of_mixed_6d_after_relu(extractor, images):
    network, seen = extractor.network, {}
    hooks = [
        getattr(network, block).branch1x1.register_forward_hook(
            lambda module, args, output, block=block: seen.__setitem__(block, output)
        )
        for block in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e')
    ]
    inputs = []
    hooks.append(network.Mixed_6d.register_forward_hook(lambda m, a, o: inputs.append(a[0])))
    spatial = extractor(images).spatial
    for hook in hooks:
        hook.remove()
    assert seen['Mixed_6d'].shape == (6, 192, 17, 17) and (spatial >= 0).all()
    expected = seen['Mixed_6d'][:, :7].permute(0, 2, 3, 1).reshape(6, -1)
    assert torch.equal(spatial, expected)
    for other in ('Mixed_6b', 'Mixed_6c', 'Mixed_6e'):
        assert not torch.equal(spatial, flatten_spatial(seen[other][:, :7]))
    # by hand from the input of the block: convolution, batch norm, ReLU
    branch = network.Mixed_6d.branch1x1
    by_hand = branch.bn(branch.conv(inputs[0])).relu()
    assert torch.equal(spatial, flatten_spatial(by_hand[:, :7]))


def test_all_features_come_from_one_pass(extractor, images):
    passes = []
    hook = extractor.network.Conv2d_1a_3x3.register_forward_hook(lambda *_: passes.append(1))
    found = extractor(images)
    hook.remove()
    assert len(passes) == 1
    assert found.pool.shape == (6, 2048) and found.logits.shape == (6, 1008)
    without_bias = found.pool @ extractor.network.fc.weight.T
    torch.testing.assert_close(found.logits, without_bias)


def test_features_of_a_random_inception_are_seeded_and_labelled(images):
    before = torch.random.get_rng_state()
    one, again, other = (RandomInception(seed)(images[:1]).pool for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    built = TASK_UTILS.build({'_scope_': 'mmsparsedit', 'type': 'RandomInception', 'seed': 5})
    assert built.description == {'name': 'random-inception', 'seed': 5} and built.random


def wrapper_keys(state):
    """Keys as pytorch-fid's wrapper module names them."""
    blocks = [
        ['Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3'],
        ['Conv2d_3b_1x1', 'Conv2d_4a_3x3'],
        [
            'Mixed_5b',
            'Mixed_5c',
            'Mixed_5d',
            'Mixed_6a',
            'Mixed_6b',
            'Mixed_6c',
            'Mixed_6d',
            'Mixed_6e',
        ],
        ['Mixed_7a', 'Mixed_7b', 'Mixed_7c'],
    ]
    place = {name: f'blocks.{i}.{j}' for i, row in enumerate(blocks) for j, name in enumerate(row)}
    renamed = {}
    for key, value in state.items():
        layer, _, rest = key.partition('.')
        renamed[f'{place[layer]}.{rest}' if layer in place else key] = value
    return renamed


@pytest.mark.parametrize('layout', ['plain', 'without counters', 'wrapper', 'auxiliary head'])
def test_weights_under_other_key_names_are_the_same(state, tmp_path, layout):
    path = tmp_path / 'pt_inception-2015-12-05-6726825d.pth'
    renamed = dict(state)
    if layout == 'without counters':
        renamed = {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}
    if layout == 'wrapper':
        renamed = wrapper_keys(state)
        assert sum(key.startswith('blocks.') for key in renamed) == len(state) - 2
    if layout == 'auxiliary head':
        renamed['AuxLogits.conv0.conv.weight'] = torch.zeros(1)
    torch.save(renamed, path, _use_new_zipfile_serialization=layout != 'without counters')
    found = read_inception_weights(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_wrong_weights_are_refused_by_name(state, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({**state, 'fc.weight': torch.zeros(1000, 2048)}, path)
    with pytest.raises(ValueError, match=r'fc.weight \(1000, 2048\) instead of \(1008, 2048\)'):
        InceptionExtractor(path)
    torch.save({**state, 'extra': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"1 unknown \['extra'\]"):
        InceptionExtractor(path)
    path.write_bytes(b'no weights')
    with pytest.raises(ValueError, match='damaged, fetch it again'):
        InceptionExtractor(path)


def test_weights_file_cannot_run_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / 'harm'), 'w'))

    torch.save({'fc.weight': Harm()}, tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match='damaged'):
        InceptionExtractor(tmp_path / 'weights.pth')
    assert not (tmp_path / 'harm').exists()


def test_missing_weights_name_file_places_and_source(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        InceptionExtractor(download=False)
    text = str(caught.value)
    for part in (
        'weights-inception-2015-12-05-6726825d.pth',
        'pt_inception-2015-12-05-6726825d.pth',
        'looked for checkpoints/',
        str(tmp_path / 'hub/checkpoints'),
        'https://github.com/toshas/torch-fidelity/releases',
        'No other network',
    ):
        assert part in text
    with pytest.raises(FileNotFoundError, match='looked for nowhere.pth'):
        InceptionExtractor('nowhere.pth')
    with pytest.raises(FileNotFoundError, match='i3d_torchscript.pt: looked for checkpoints/'):
        module.I3DExtractor()


def test_failed_download_says_so_and_a_found_file_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(url, target):
        asked.append(url)
        raise OSError('no network here')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(FileNotFoundError, match='The download failed: no network here'):
        find_weights(None, INCEPTION_FILES, download=True)
    assert asked == [
        'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
        'weights-inception-2015-12-05-6726825d.pth'
    ]
    (tmp_path / 'checkpoints').mkdir()
    second = tmp_path / 'checkpoints/pt_inception-2015-12-05-6726825d.pth'
    second.write_bytes(b'')
    assert find_weights(None, INCEPTION_FILES, download=True).resolve() == second


@pytest.mark.parametrize(
    'images',
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_inputs_are_refused(extractor, images):
    with pytest.raises(ValueError, match=r'expected \(N, 3, H, W\) of torch.uint8'):
        extractor(images)


def test_autocast_does_not_reach_the_network(extractor, images):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = extractor(images[:1]).pool
    assert torch.equal(inside, extractor(images[:1]).pool)


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.slow(25)
def test_fid_equals_torch_fidelitys_own(weights, extractor):
    from torch_fidelity import calculate_metrics

    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (24, 3, 24, 24), generator=generator, dtype=torch.uint8)
    smooth = torch.nn.functional.avg_pool2d(noise.float(), 3, 1, 1).to(torch.uint8)
    theirs = calculate_metrics(
        input1=Images(noise),
        input2=Images(smooth),
        fid=True,
        cuda=False,
        batch_size=12,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
        save_cpu_ram=True,
    )['frechet_inception_distance']
    moments = []
    for images in (noise, smooth):
        statistics = FeatureStatistics()
        for batch in images.split(8):
            statistics.update(extractor(batch).pool)
        moments += [statistics.mean, statistics.covariance]
    ours = frechet_distance(*moments)
    assert np.isfinite(ours) and ours > 0.1
    assert ours == pytest.approx(theirs, rel=1e-4)
