"""Every registered class is built by name where only the registries have been imported."""

import json
import sys

import pytest

import processes

# each registry in a process of its own, forked from one that has loaded the stack but nothing of
# the package beside its registries
FRESH = """
import importlib, json, os, pkgutil, sys
import mmengine.runner, mmengine.visualization, scipy.linalg, torch, torchvision
from mmengine.registry import Registry
import mmsparsedit
from mmsparsedit import registry

loaded = sorted(name for name in sys.modules if name.startswith('mmsparsedit.'))
assert set(loaded) <= {f'mmsparsedit.{name}' for name in ('mim', 'registry', 'version')}, loaded
registries = {name: r for name, r in vars(registry).items() if isinstance(r, Registry)}

def in_a_child(work):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        return json.load(answer)

def place(kind):
    return f'{kind.__module__}.{kind.__qualname__}'

def registered():
    for module in pkgutil.walk_packages(mmsparsedit.__path__, 'mmsparsedit.'):
        importlib.import_module(module.name)
    return {name: {key: place(kind) for key, kind in r.module_dict.items()}
            for name, r in registries.items()}

def resolved(name, keys):
    found = {key: registries[name].get(key) for key in keys}
    return {key: kind and place(kind) for key, kind in found.items()}

expected = in_a_child(registered)
found = {name: in_a_child(lambda: resolved(name, kinds)) for name, kinds in expected.items()}

def extractor():
    from mmengine.registry import init_default_scope
    init_default_scope('mmsparsedit')
    try:
        registry.TASK_UTILS.build(dict(type='I3DExtractor', weights='nowhere.pt'))
    except FileNotFoundError as error:
        return str(error)

print(json.dumps(dict(expected=expected, found=found, extractor=in_a_child(extractor))))
"""


@pytest.fixture(scope='module')
def answer():
    done = processes.run([sys.executable, '-c', FRESH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_registered_class_is_found_by_name(answer):
    assert answer['found'] == answer['expected']
    of_the_package = {name for name, kinds in answer['expected'].items() if kinds}
    assert of_the_package >= {'MODELS', 'TASK_UTILS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'HOOKS'}


def test_an_extractor_of_a_metric_is_built_by_name(answer):
    assert 'nowhere.pt' in answer['extractor']
