import gc
import os
import sys
from collections import Counter
from pathlib import Path

# several workers of one thread each: threads of several processes on the same cores get in one
# another's way
os.environ.setdefault('OMP_NUM_THREADS', '1')

# the other way to look for a GPU, while libraries are imported, forbids it to processes that are
# forked later (processes.py)
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

# helpers shared by tests (parity.py, runs.py) import by name from any folder of tests
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    """Files without slow tests first, then the others, the longest first: cores end together."""
    seconds = Counter()
    for item in items:
        for mark in item.iter_markers('slow'):
            seconds[item.path] += mark.args[0]
    items.sort(key=lambda item: (item.path in seconds, -seconds[item.path]))


def pytest_collection_finish():
    """Libraries and tests are loaded: what they made is never garbage, a search need not look."""
    gc.freeze()
