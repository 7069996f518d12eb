"""A folder of photographs and a small VAE."""

import warnings

import pytest
import torch

from photograph_folder import write_photographs


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """Folder of four class folders: 17 images that can be read, 3 that cannot."""
    root = tmp_path_factory.mktemp('photographs')
    write_photographs(root)
    return root


@pytest.fixture(scope='session')
def small_vae(tmp_path_factory):
    """Folder of an AutoencoderKL of width 8 with random weights, 8 pixels per latent cell."""
    diffusers = pytest.importorskip('diffusers')
    folder = tmp_path_factory.mktemp('vae')
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=('DownEncoderBlock2D',) * 4,
            up_block_types=('UpDecoderBlock2D',) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
        ).save_pretrained(folder)
    return folder
