"""What a training leaves in its work dir, read as data: nothing of it is run.

MMEngine writes a folder for each start: ``<time>/vis_data/scalars.json`` with a line for each
logged step, ``<time>/vis_data/config.py`` and ``<time>/<time>.log``. Beside them stand
``metrics.json``, ``samples/iter_<n>.png`` and the checkpoints.
"""

import ast
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from .launch import ConfigError

Points = list[tuple[int, float]]  # (iteration, value), iterations rising

UNTOLD = {'step', 'iter', 'epoch'}  # keys of a line that are no quantity
TIMES = {'data_time', 'time'}


@dataclass
class History:
    """A work dir.

    Attributes:
        training: points of each quantity that training logged: ``loss``, ``mse_stage0``, ...
        validation: points of each metric of a validation or a sampling hook.
        config: keys and plain values; of a value that is an expression, its text.
        metrics: of ``metrics.json``: cost, and the metrics of the last validation or test.
        versions: of packages, from ``metrics.json``.
        environment: what the newest log says of the machine.
        samples: pictures by iteration.
        unread: lines and files that could not be read, as sentences.
    """

    folder: Path
    name: str
    training: dict[str, Points] = field(default_factory=dict)
    validation: dict[str, Points] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    config_text: str = ''
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    samples: dict[int, Path] = field(default_factory=dict)
    checkpoint: str | None = None
    unread: list[str] = field(default_factory=list)

    @property
    def iterations(self) -> int:
        """The last iteration that was logged, or that the last checkpoint is of."""
        logged = max((points[-1][0] for points in self.training.values() if points), default=0)
        saved = re.fullmatch(r'iter_(\d+)\.pth', self.checkpoint or '')
        return max(logged, int(saved[1])) if saved else logged

    def get(self, *keys: str):
        """A value of the config, None where there is none."""
        value = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_history(folder: str | Path) -> History:
    """Read a work dir, of a run that goes on too.

    Raises:
        ConfigError: there is no such folder, or nothing of a run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f'{folder} is no folder: give work dirs of tools/train.py.')
    starts = sorted(folder.glob('*/vis_data/scalars.json'))
    configs = [*reversed(sorted(folder.glob('*/vis_data/config.py'))), *folder.glob('*.py')]
    if not starts and not (folder / 'metrics.json').is_file():
        raise ConfigError(
            f'{folder} holds neither TIME/vis_data/scalars.json nor metrics.json: expected the '
            'work dir of tools/train.py or tools/test.py, by default work_dirs/CONFIG.'
        )
    history = History(folder, folder.resolve().name)
    for path in starts:
        _read_scalars(path, history)
    _read_config(configs, history)
    _read_metrics(folder / 'metrics.json', history)
    if logs := sorted(folder.glob('*/*.log')):
        history.environment = _read_environment(logs[-1])
    for path in (folder / 'samples').glob('iter_*.png'):
        if number := re.fullmatch(r'iter_(\d+)', path.stem):
            history.samples[int(number[1])] = path
    history.samples = dict(sorted(history.samples.items()))
    if (last := folder / 'last_checkpoint').is_file():
        history.checkpoint = Path(last.read_text().strip()).name
    return history


def _read_scalars(path: Path, history: History) -> None:
    """Add a start's lines; from its first step on it replaces what an earlier start logged."""
    training: dict[str, Points] = {}
    validation: dict[str, Points] = {}
    damaged = 0
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            try:
                found = json.loads(line)
                step = int(found['step'])
            except (ValueError, KeyError, TypeError):  # the last line of a killed run is cut
                damaged += 1
                continue
            trained = 'iter' in found
            for key, value in found.items():
                if key in UNTOLD or not isinstance(value, int | float):
                    continue
                if not trained and key in TIMES:
                    continue
                (training if trained else validation).setdefault(key, []).append((step, value))
    if damaged:
        history.unread.append(f'{path.relative_to(history.folder)}: {damaged} lines are damaged')
    for new, kept in ((training, history.training), (validation, history.validation)):
        first = min((points[0][0] for points in new.values()), default=math.inf)
        for key, points in kept.items():
            kept[key] = [point for point in points if point[0] < first]
        for key, points in new.items():
            kept[key] = kept.get(key, []) + sorted(dict(points).items())


def _read_config(paths: list[Path], history: History) -> None:
    """Keep the first config that trains, else the first: a test leaves one without training."""
    for path in paths:
        text = path.read_text(encoding='utf-8', errors='replace')
        config = literal_config(text)
        if not history.config_text or config.get('train_cfg') is not None:
            history.config_text, history.config = text, config
        if config.get('train_cfg') is not None:
            return


def _read_metrics(path: Path, history: History) -> None:
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text())
        metrics, versions = found['metrics'], found.get('recipe', {}).get('versions', {})
        history.metrics = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
        history.versions = {k: str(v) for k, v in versions.items() if v is not None}
    except (ValueError, KeyError, AttributeError) as error:
        history.unread.append(f'metrics.json: {type(error).__name__}: {error}')


def _read_environment(path: Path) -> dict[str, str]:
    """``key: value`` lines of the head that MMEngine writes into a log."""
    found: dict[str, str] = {}
    inside = False
    with open(path, encoding='utf-8', errors='replace') as file:
        for _, line in zip(range(300), file, strict=False):
            if line.startswith(('System environment:', 'Runtime environment:')):
                inside = True
            elif inside and (pair := re.match(r'    ([^:]{1,40}): (.+)', line)):
                if len(pair[2]) < 200 and pair[1] != 'PyTorch compiling details':
                    found[pair[1]] = pair[2].strip()
            elif ' - INFO - Config:' in line:
                break
    return found


def literal_config(text: str) -> dict:
    """Keys and values of a config that MMEngine wrote out, without running it.

    ``dict(...)`` and literals become plain values, any other expression stays its own text.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return {}
    return {
        statement.targets[0].id: _literal(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _literal(node: ast.expr):
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[]):
            return {item.arg: _literal(item.value) for item in node.keywords if item.arg}
        case ast.Dict() if None not in node.keys:
            pairs = zip(node.keys, node.values, strict=True)
            return {str(_literal(key)): _literal(value) for key, value in pairs}
        case ast.List() | ast.Tuple():
            return [_literal(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def flat(config: dict, prefix: str = '') -> dict[str, object]:
    """Nested keys as ``model.network.depth``."""
    found: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found.update(flat(value, f'{prefix}{key}.'))
        else:
            found[prefix + key] = value
    return found
