import importlib.util

import pytest

from runs import ROOT


@pytest.fixture(scope='session')
def train_tool():
    """tools/train.py as a module."""
    spec = importlib.util.spec_from_file_location('train_tool', ROOT / 'tools/train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
