"""What hooks ask of a Runner, MMEngine's own included."""

from mmengine.model import is_model_wrapper
from torch import nn


def bare_model(runner) -> nn.Module:
    """The generator without the wrapper that distributes it."""
    if hasattr(runner, 'bare_model'):
        return runner.bare_model
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def is_sharded(runner) -> bool:
    """Whether all processes have to run the network together."""
    return getattr(runner, 'sharded', False)
