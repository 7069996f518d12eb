"""The picture of the token flow: what the layers of the real configs read and write."""

import re
import xml.etree.ElementTree as xml

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsparsedit.apis.flow_picture import flow_svg, token_flow
from mmsparsedit.registry import MODELS

from runs import ROOT

MODULE = [('generation', 64, 256), *[('sparse', 64, 64)] * 3, ('recovery', 256, 64)]
DENSE = ('dense', 256, 256)


def generator(config):
    init_default_scope('mmsparsedit')
    with torch.device('meta'):
        return MODELS.build(Config.fromfile(ROOT / 'configs' / config).model)


@pytest.mark.parametrize('config', ['sparsedit/xl_256.py', 'sparsepixart/sam_256.py'])
def test_flow_of_images_is_the_papers(config):
    found = [tuple(vars(s).values()) for s in token_flow(generator(config).network, (8, 8))]
    bottom, top = ('bottom', 256, 256), ('top', 256, 256)
    assert found == [bottom] * 2 + [*MODULE, DENSE] * 4 + [top] * 2


def test_flow_of_clips_goes_down_and_up_in_two_steps():
    steps = token_flow(generator('sparselatte/ffs.py').network, (8, 8, 8))
    assert [(s.part, s.written, s.read) for s in steps[2:8]] == [
        ('generation', 16 * 64, 16 * 256),  # fewer places
        ('generation', 8 * 64, 16 * 64),  # fewer frames
        ('sparse', 512, 512),
        ('sparse', 512, 512),
        ('recovery', 1024, 512),
        ('recovery', 4096, 1024),
    ]


def test_picture_has_a_bar_for_each_layer_and_its_numbers():
    config = Config.fromfile(ROOT / 'configs/sparsedit/xl_256.py')
    svg = flow_svg(config.model, 'xl_256')
    xml.fromstring(svg)
    assert len(re.findall('<title>step', svg)) == 28
    assert '16×16 tokens, 8×8 in the middle, 65.78 GMACs a call' in svg
    with pytest.raises(ValueError, match='dit_xl_256 is dense'):
        flow_svg(Config.fromfile(ROOT / 'configs/sparsedit/dit_xl_256.py').model, 'dit_xl_256')
