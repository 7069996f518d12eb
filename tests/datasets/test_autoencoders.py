"""The autoencoder of diffusers behind one interface."""

import copy
import socket

import pytest
import torch

from mmsparsedit.models.autoencoders import DiffusersVAE
from mmsparsedit.registry import MODELS


@pytest.fixture(scope='module')
def vae(small_vae):
    return MODELS.build(dict(type='DiffusersVAE', pretrained=str(small_vae), batch_size=3))


@pytest.fixture(scope='module')
def images():
    return torch.rand(5, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_equals_diffusers(vae, images, small_vae):
    from diffusers import AutoencoderKL

    reference = AutoencoderKL.from_pretrained(small_vae, low_cpu_mem_usage=False).eval()
    mean, logvar = vae.encode(images)
    assert mean.shape == logvar.shape == (5, 4, 4, 6)
    with torch.no_grad():
        posterior = reference.encode(images).latent_dist
        decoded = reference.decode(mean).sample
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.decode(mean), decoded, rtol=1e-4, atol=1e-5)
    assert vae.downsampling == 8 and vae.latent_channels == 4


def test_stays_outside_the_module_tree(vae):
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.autoencoder = vae
            self.layer = torch.nn.Linear(2, 2)

    holder = Holder()
    assert list(holder.state_dict()) == ['layer.weight', 'layer.bias']
    assert copy.deepcopy(holder).autoencoder is vae
    assert not any(parameter.requires_grad for parameter in vae.vae.parameters())
    assert not vae.vae.training


def test_bfloat16_and_channels_last(vae, images, small_vae):
    other = DiffusersVAE(str(small_vae), dtype='bfloat16', channels_last=True)
    mean, _ = other.encode(images)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, vae.encode(images)[0], rtol=0.05, atol=0.05)
    assert other.decode(mean).dtype == torch.float32


def test_digest_is_that_of_the_weights(vae, small_vae, tmp_path):
    again = DiffusersVAE(str(small_vae))
    assert again.digest() == vae.digest()
    with torch.no_grad():
        next(again.vae.parameters()).view(-1)[0] += 1
    assert again.digest() != vae.digest()


def test_shapes_are_checked(vae):
    for shape in [(1, 3, 30, 32), (1, 4, 32, 32), (3, 32, 32)]:
        with pytest.raises(ValueError, match='expected .* that 8 divides'):
            vae.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=r'expected \(B, 4, h, w\)'):
        vae.decode(torch.zeros(1, 3, 4, 4))


def test_missing_models_fail_at_once(vae, small_vae, tmp_path, monkeypatch):
    def connect(*args):
        raise AssertionError('a missing model was looked for on a server')

    monkeypatch.setattr(socket.socket, 'connect', connect)
    for name in (tmp_path / 'vae', './vae', 'no-such-folder'):
        with pytest.raises(FileNotFoundError, match='there is no folder'):
            DiffusersVAE(str(name))
    named = DiffusersVAE('no-such-owner/no-such-vae')  # training from latents never loads it
    for attempt in (named.check, lambda: named.vae):
        with pytest.raises(FileNotFoundError, match='local_files_only=False'):
            attempt()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'vae').symlink_to(small_vae)
    assert DiffusersVAE(str(tmp_path / 'empty'), subfolder='vae').digest() == vae.digest()
    with pytest.raises(FileNotFoundError, match='holds no config.json'):
        DiffusersVAE(str(tmp_path / 'empty'))


def test_a_folder_without_weights(small_vae, tmp_path):
    (tmp_path / 'config.json').write_bytes((small_vae / 'config.json').read_bytes())
    with pytest.raises(ValueError, match='holds no weights'):
        DiffusersVAE(str(tmp_path)).encode(torch.zeros(1, 3, 32, 32))


def test_arguments_are_checked(small_vae):
    with pytest.raises(ValueError, match="dtype='fp16'"):
        DiffusersVAE(str(small_vae), dtype='fp16')
    with pytest.raises(ValueError, match='batch_size=0'):
        DiffusersVAE(str(small_vae), batch_size=0)
