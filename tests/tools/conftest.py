"""A tiny training that several commands start from."""

import pytest

from runs import train


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train(folder, 4)
    return folder / 'iter_4.pth'
