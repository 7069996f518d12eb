"""Child registries of MMEngine under the scope ``mmsparsedit``.

A downstream project registers its own modules here, or in a child registry of its own, and names
its package in ``custom_imports`` of a config (see ``projects/example_project``). The registries
without locations hold nothing of this package: they let a config with
``default_scope = 'mmsparsedit'`` name MMEngine's types without a prefix.
"""

from collections.abc import Mapping

from mmengine import registry as mmengine_registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

SCOPE = 'mmsparsedit'
# MMEngine's list of packages whose configs `mmsparsedit::sparsedit/digits.py` may name. The value
# is what it looks for: a distribution's name, whose folder it misses in editable installs, or, as
# here, any module of the package.
MODULE2PACKAGE.setdefault(SCOPE, f'{SCOPE}.version')


def _child(name: str, *packages: str) -> Registry:
    """The registry of MMEngine's variable ``name``, as a child with this package's locations."""
    parent = getattr(mmengine_registry, name)
    return Registry(
        parent.name,
        parent=parent,
        scope=SCOPE,
        # none at all would make MMEngine import the whole package in search of modules
        locations=[f'{SCOPE}.{package}' for package in packages or ('registry',)],
    )


# networks, their blocks, generators, autoencoders, averages of weights
MODELS = _child('MODELS', 'models', 'engine')
# pruning schedules, diffusion processes, samplers, feature extractors of metrics
TASK_UTILS = _child('TASK_UTILS', 'prune', 'diffusion', 'evaluation')
DATASETS = _child('DATASETS', 'datasets')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'datasets')
TRANSFORMS = _child('TRANSFORMS', 'datasets.transforms')
METRICS = _child('METRICS', 'evaluation')
HOOKS = _child('HOOKS', 'engine')
LOOPS = _child('LOOPS', 'engine')
RUNNERS = _child('RUNNERS', 'engine')

EVALUATORS = _child('EVALUATOR')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'engine')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
VISBACKENDS = _child('VISBACKENDS')
VISUALIZERS = _child('VISUALIZERS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')


def class_of(config: Mapping, registry: Registry, default: str) -> type | None:
    """What ``type`` of a config stands for: in text its name, in lazy configs the class itself.

    Returns:
        None for a name that ``registry`` does not know.
    """
    kind = config.get('type', default)
    return registry.get(kind) if isinstance(kind, str) else kind
