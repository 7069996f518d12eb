"""Training that resumes at a position of the data, and a test that resumes at a sample."""

from .test_loop import StoredTestLoop
from .train_loop import SeekableTrainLoop

__all__ = ['SeekableTrainLoop', 'StoredTestLoop']
