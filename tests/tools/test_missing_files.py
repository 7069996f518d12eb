"""Commands whose config, checkpoint or data are not there, or not what they need."""

import pytest

from runs import SPARSE, run_tool


@pytest.mark.parametrize(
    'arguments,message',
    [
        (('tools/train.py', 'configs/nothing.py'), 'does not exist'),
        (('tools/test.py', SPARSE, 'nothing.pth'), 'nothing.pth does not exist'),
        (('tools/train.py', SPARSE, '--resume', 'nothing.pth'), 'nothing.pth does not exist'),
        (('tools/train.py', 'configs/sparsedit/xl_512.py'), 'data/imagenet512_latents'),
        (
            ('tools/train.py', 'configs/sparsedit/xl_512.py'),
            'tools/dataset_converters/extract_latents.py',
        ),
        (
            ('tools/model_converters/convert_checkpoint.py', 'a', 'b.zip', '--config', SPARSE),
            'must end in',
        ),
        (('tools/analysis_tools/plot_schedule.py', 'configs/sparsedit/dit_digits.py'), 'no prune'),
    ],
)
def test_missing_things_are_named(arguments, message):
    done = run_tool(*arguments)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
