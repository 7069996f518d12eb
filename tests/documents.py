"""Blocks of code in the documents, and a folder where their commands run at a small size.

A block without a mark runs as it stands: Python in the folder of ``Sandbox``, a command with the
few settings of ``SMALL`` that make it short. An HTML comment above a block, which no reader sees,
says what else holds:

``<!-- given CODE -->`` defines what the text around the block has named, before it runs;
``<!-- needs a GPU -->``, ``needs data``, ``needs weights``, ``takes minutes``, ``takes hours``: it
cannot run here. Python is then compiled; of commands the tool, options and configs are checked.

``python tests/documents.py`` counts them all.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import processes
from runs import ROOT

PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').rglob('README.md')),
    *sorted((ROOT / 'projects').rglob('README.md')),
]
BLOCK = re.compile(
    r'(?: *<!-- ((?:(?!-->).)+?) *-->\n+)?^( *)```(\w*)\n(.*?)^ *```', re.DOTALL | re.MULTILINE
)
CANNOT_RUN = ('needs a GPU', 'needs data', 'needs weights', 'takes minutes', 'takes hours')
# programs that documents name besides the tools; of these no command is run
OTHERS = ('cd', 'mkdir', 'rm', 'tar', 'pip', 'pytest', 'pre-commit', 'mkdocs', 'ruff', 'nvidia-smi')
MODULES = dict(mmsparsedit='mmsparsedit', tensorboard='tensorboard.main')
# what the words of a command stand for
NAMES = {'CONFIG': 'configs/sparsedit/digits.py', 'CHECKPOINT': 'work_dirs/digits/iter_1500.pth'}
TRAINING = [
    'train_cfg.max_iters=1', 'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False', 'val_dataloader=None', 'val_cfg=None',
    'val_evaluator=None', 'param_scheduler=None', 'default_hooks.sample_grid=None',
    'default_hooks.throughput=None',
]  # fmt: skip
NARROW = ['model.network.hidden_size=24', 'model.network.num_heads=2']
# by the tool's name: settings of the config, options
SMALL = {
    'train': (TRAINING, []),
    'test': (['test_dataloader.dataset.num_samples=8', 'test_dataloader.batch_size=8'], []),
    'fit_start': ([], ['--batches', '4']),
    'new': ([], ['--no-reference', '--force']),
    'benchmark_loader': ([], ['--batches', '3']),
    'make_moving_digits': ([], ['--num-videos', '60']),
    'compare_runs': ([], ['--rounds', '0']),
    'tensorboard': ([], ['--inspect']),
}


@dataclass
class Block:
    """A block of code; ``commands`` of a shell's, as the shell would run them."""

    page: Path
    line: int
    language: str
    mark: str | None
    code: str
    commands: list[tuple[dict, list[str]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        place = self.page.relative_to(ROOT).as_posix()
        return f'{place}:{self.line}'

    @property
    def runs(self) -> bool:
        return self.mark not in CANNOT_RUN


@functools.cache
def blocks() -> list[Block]:
    """All blocks, with the commands of those that are a shell's."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        of_page = [
            Block(page, text[: m.start(4)].count('\n') + 1, m[3], m[1], textwrap.dedent(m[4]))
            for m in BLOCK.finditer(text)
        ]
        record([block for block in of_page if block.language == 'bash'])
        found += of_page
    return found


RECORDER = r"""
record() {
  { printf '%s\0' "$BLOCK" "${PYTHONPATH:-}" "$@"; printf '\n\0'; } >> "$RECORD"
}
for name in python torchrun srun tensorboard mmsparsedit bash PROGRAMS; do
  eval "$name() { record $name \"\$@\"; }"
done
"""


def record(shells: list[Block]) -> None:
    """Have bash read the blocks of a page one after another, with programs that only note down.

    Loops, functions and variables are the shell's own affair; a program that no block should name
    is an error.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / 'tools').mkdir()
        for name in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
            script = folder / f'tools/{name}.sh'
            note = f'{RECORDER}\nrecord bash tools/{name}.sh "$@"\n'.replace('PROGRAMS', 'true')
            script.write_text(f'#!/bin/bash\n{note}')
            script.chmod(0o755)
        lines = [RECORDER.replace('PROGRAMS', ' '.join(OTHERS))]
        for number, block in enumerate(shells):
            lines += [f'export BLOCK={number}', block.code]
        (folder / 'page.sh').write_text('\n'.join(lines))
        env = dict(RECORD=str(folder / 'record'), PATH='/nowhere', HOME=str(folder))
        done = subprocess.run(
            [shutil.which('bash'), '-eu', 'page.sh'],
            cwd=folder, env=env, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f'{shells[0].page}: {done.stderr}')
        text = (folder / 'record').read_text() if shells else ''
    for entry in text.split('\n\0')[:-1]:
        number, path, *command = entry.split('\0')[:-1]
        shells[int(number)].commands.append((dict(PYTHONPATH=path) if path else {}, command))


def tool_of(command: list[str]) -> tuple[str, list[str]] | None:
    """The tool of the repository that a command starts, and its arguments; None for others."""
    scripts = [i for i, word in enumerate(command) if re.match(r'tools/\S+\.(py|sh)$', word)]
    if not scripts:
        return None
    return command[scripts[0]], command[scripts[0] + 1 :]


class Sandbox:
    """A folder like the repository's root, whose work dirs hold runs of one iteration.

    What a command needs of other commands is made when it is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ('configs', 'tools', 'projects'):
            (folder / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / 'README.md', folder)
        shutil.copytree(ROOT / 'docs', folder / 'docs', ignore=shutil.ignore_patterns('site'))
        self.made: set = set()

    def run(self, command: list[str], env: dict) -> bool:
        """Run a command small; False where one that differs in values alone has run before.

        Raises:
            AssertionError: it failed; what it wrote to stderr.
        """
        command = [NAMES.get(word, word) for word in command]
        if command[0] == 'python':
            name = Path(command[1]).stem
        else:
            name = command[1] if command[0] == 'mmsparsedit' else command[0]
            command = ['python', '-m', MODULES[command[0]], *command[1:]]
        settings, options = SMALL.get(name, ([], []))
        command = _with_settings([*command, *options], settings)
        kind = (name, *sorted(word for word in command if word.startswith(('--', 'configs/'))))
        if kind in self.made:
            return False
        for word in command:
            self.provide(word.partition('=')[2] or word, name, command)
        if '--out' in command and (out := command[command.index('--out') + 1]).startswith('data/'):
            shutil.rmtree(self.folder / out, ignore_errors=True)  # another page's, of that name
        self.call(command, env)
        self.made.add(kind)
        return True

    def call(self, command: list[str], env: dict) -> None:
        done = processes.run(
            [sys.executable, *command[1:]],
            cwd=self.folder, text=True, capture_output=True, timeout=300,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'TORCH_HOME': str(self.folder), **env},
        )  # fmt: skip
        assert done.returncode == 0, f'{shlex.join(command)}\n{done.stderr}'

    def provide(self, word: str, tool: str, command: list[str]) -> None:
        """Make what a word of a command names and an earlier command would have made."""
        place = self.folder / word
        starts_anew = 'load_from=None' in command
        if word.startswith('configs/') and tool in ('train', 'fit_start') and not starts_anew:
            for source in re.findall(r"'(work_dirs/[\w/]+\.pth)'", place.read_text()):
                self.provide(source, tool, command)
        elif checkpoint := re.fullmatch(r'work_dirs/(\w+)/iter_\d+\.pth', word):
            self.checkpoint(checkpoint[1], place)
        elif word.startswith('work_dirs/') and tool in ('compare_runs', 'report', 'tensorboard'):
            self.finished(place, command)
        elif word in ('data/imagenet256_latents', 'data/my_latents') and not place.exists():
            maker = 'tools/dataset_converters/make_toy_latents.py'
            self.call(['python', maker, '--random', '8', '--out', word], {})
        elif word == 'my_images' and not place.exists():
            from PIL import Image

            for name in ('cat/1.png', 'cat/2.png', 'dog/3.png'):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                Image.linear_gradient('L').save(place / name)

    def checkpoint(self, name: str, place: Path) -> None:
        """A checkpoint of a config after one iteration."""
        if place.exists():
            return
        config = sorted((ROOT / 'configs').glob(f'sparse*/**/{name}.py'))[0]
        config = config.relative_to(ROOT).as_posix()
        if not list(place.parent.glob('iter_*.pth')):
            self.run(['python', 'tools/train.py', config], {})
        os.link(min(place.parent.glob('iter_*.pth')), place)

    def finished(self, folder: Path, command: list[str]) -> None:
        """A work dir with a figure for every key that ``--keys`` asks for."""
        import json

        file = folder / 'metrics.json'
        if not file.exists():
            self.run_of(folder)
        keys = command[command.index('--keys') + 1 :] if '--keys' in command else ['cost/nfe']
        figures = {key.partition('=')[0]: 1.0 for key in keys if '/' in key or '_' in key}
        found = json.loads(file.read_text()) if file.exists() else dict(metrics={}, recipe={})
        found['metrics'] = {**figures, **found['metrics']}
        file.write_text(json.dumps(found))

    def run_of(self, folder: Path) -> None:
        """A work dir that a training left: of the config of its name, of digits otherwise."""
        known = list((ROOT / 'configs').glob(f'sparse*/**/{folder.name}.py'))
        name = folder.name if known else 'digits'
        of_config = folder.parents[len(folder.relative_to(self.folder).parts) - 2] / name
        self.checkpoint(name, of_config / 'iter_1.pth')
        if folder != of_config:
            shutil.copytree(of_config, folder)


def _with_settings(command: list[str], settings: list[str]) -> list[str]:
    """The command with more of ``--cfg-options``, narrow where its config is large."""
    if any(re.match(r'configs/\S*/(xl|b)_\d', word) for word in command):
        drawing = Path(command[1]).stem in ('plot_schedule', 'draw_token_flow', 'new')
        settings = settings if drawing else [*settings, *NARROW]
    if not settings:
        return command
    if '--cfg-options' not in command:
        return [*command, '--cfg-options', *settings]
    place = command.index('--cfg-options') + 1
    given = {word.partition('=')[0] for word in command}
    kept = [word for word in settings if word.partition('=')[0] not in given]
    return [*command[:place], *kept, *command[place:]]


def count() -> Counter:
    """Blocks by language and by what is done with them."""
    found: Counter = Counter()
    for block in blocks():
        if block.language in ('bash', 'python'):
            found[block.language, 'runs' if block.runs else block.mark] += 1
        else:
            found[block.language or 'text', 'no code'] += 1
    return found


if __name__ == '__main__':
    for (language, state), number in sorted(count().items()):
        print(f'{number:4d} {language:7s} {state}')
    runnable = [b for b in blocks() if b.language == 'bash']
    for runs in (True, False):
        number = sum(len(b.commands) for b in runnable if b.runs == runs)
        print(f'{number:4d} commands {"run" if runs else "checked for their options alone"}')
