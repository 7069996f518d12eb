import sys
from pathlib import Path

# helpers shared by tests (parity.py) import by name from any folder of tests
sys.path.insert(0, str(Path(__file__).parent))
