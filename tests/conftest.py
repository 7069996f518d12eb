import os
import sys
from pathlib import Path

# several workers of one thread each: threads of several processes on the same cores get in one
# another's way
os.environ.setdefault('OMP_NUM_THREADS', '1')

# the other way to look for a GPU, while libraries are imported, forbids it to processes that are
# forked later (processes.py)
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

# helpers shared by tests (parity.py, runs.py) import by name from any folder of tests
sys.path.insert(0, str(Path(__file__).parent))
