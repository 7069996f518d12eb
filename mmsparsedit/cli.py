"""The console command: ``mmsparsedit train CONFIG`` runs ``tools/train.py CONFIG``."""

import os
import sys
import types
from pathlib import Path

from .mim import tool_path
from .version import __version__

# name, tool, what it does
COMMANDS = (
    ('new', 'new.py', 'write the config of your own images or videos'),
    ('extract', 'dataset_converters/extract_latents.py', 'images or videos to latents'),
    ('extract-text', 'dataset_converters/extract_text_features.py', 'captions to features'),
    ('reference', 'dataset_converters/build_reference.py', 'statistics that samples are held to'),
    ('train', 'train.py', 'train a config'),
    ('test', 'test.py', 'sample a checkpoint and measure the samples'),
    ('sample', 'sample.py', 'sample the labels or prompts that you name'),
    ('evaluate', 'analysis_tools/evaluate.py', "measure anybody's samples"),
    ('flops', 'analysis_tools/get_flops.py', 'cost of a config, exactly'),
    ('benchmark', 'analysis_tools/benchmark.py', 'speed of a config beside another'),
    ('schedule', 'analysis_tools/plot_schedule.py', 'draw the prune schedule of a config'),
    ('report', 'analysis_tools/report.py', 'a page of a training, or of two side by side'),
    ('compare', 'analysis_tools/compare_runs.py', 'a table of finished runs'),
    ('logs', 'analysis_tools/analyze_logs.py', 'curves and times of logs'),
    ('browse', 'analysis_tools/browse_dataset.py', 'look at what a config trains on'),
    ('convert', 'model_converters/convert_checkpoint.py', 'a checkpoint to another layout'),
    ('publish', 'model_converters/publish_model.py', 'the weights of a checkpoint alone'),
    ('print-config', 'misc/print_config.py', 'a config with its bases merged'),
    ('configs', None, 'names of the configs that come with the package'),
)


def usage() -> str:
    width = max(len(name) for name, _, _ in COMMANDS)
    lines = [f'  {name:<{width}}  {text}' for name, _, text in COMMANDS]
    return '\n'.join(
        [
            'usage: mmsparsedit COMMAND [arguments]    (mmsparsedit COMMAND --help says which)',
            '',
            *lines,
            '',
            'A config is a file, or the name of one of the package: sparsedit/digits.py.',
            'Several GPUs: python -m mmsparsedit.apis.torchrun --nproc_per_node 8 -m mmsparsedit '
            'train CONFIG --launcher pytorch',
        ]
    )


def main() -> None:
    """Run the tool that the first argument names, with the arguments behind it."""
    given = sys.argv[1:]
    if not given or given[0] in ('-h', '--help'):
        show(usage())
        sys.exit(0 if given else 2)
    if given[0] in ('-V', '--version'):
        print(__version__)
        return
    tools = {name: tool for name, tool, _ in COMMANDS}
    if given[0] not in tools:
        fail(f'no command {given[0]!r}: use one of {", ".join(tools)}.')
    if tools[given[0]] is None:
        from .mim import config_names

        show('\n'.join(name for name in config_names() if not name.startswith('_base_')))
        return
    try:
        path = tool_path(tools[given[0]])
    except FileNotFoundError as error:
        fail(f'{given[0]}: {error} Install a newer one.')
    sys.argv = [f'mmsparsedit {given[0]}', *given[1:]]
    run_script(path)


def run_script(path: Path) -> None:
    """Run a file as the main module; ``runpy`` would put its name before ``mmsparsedit train``."""
    module = types.ModuleType('__main__')
    module.__file__ = str(path)
    sys.modules['__main__'] = module
    exec(compile(path.read_text(encoding='utf-8'), str(path), 'exec'), module.__dict__)


def show(text: str) -> None:
    """Print; a reader that has seen enough, such as ``head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # of the flush at the end


def fail(message: str) -> None:
    print(f'mmsparsedit: error: {message}', file=sys.stderr)
    sys.exit(2)
