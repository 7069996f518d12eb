"""A short form of ``python tests/survival.py --kills 50``."""

import pytest
from survival import attack


@pytest.mark.slow(20)
def test_killed_trainings_lose_nothing(tmp_path):
    done, equal = attack(tmp_path, 6)
    assert done.total() == 6 and equal >= 1


@pytest.mark.slow(20)
def test_two_killed_processes_lose_nothing(tmp_path):
    done, equal = attack(tmp_path, 2, world=2)
    assert done.total() == 2 and equal >= 1
