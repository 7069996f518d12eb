"""Training that resumes at a position of the data, a quicker validation, a test that resumes."""

from .test_loop import StoredTestLoop
from .train_loop import SeekableTrainLoop
from .val_loop import SampledValLoop

__all__ = ['SampledValLoop', 'SeekableTrainLoop', 'StoredTestLoop']
