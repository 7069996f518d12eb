"""Pictures of a training in TensorBoard's event file, and in the stack's other backends."""

import io

import numpy as np
from mmengine.visualization import LocalVisBackend, MLflowVisBackend, WandbVisBackend
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmsparsedit.visualization import show_picture

from runs import TINY, train


def test_a_training_puts_its_sample_grids_and_losses_into_tensorboard(tmp_path):
    options = [option for option in TINY if not option.startswith('default_hooks.sample_grid')]
    options += ['default_hooks.sample_grid.interval=2', 'default_hooks.sample_grid.num_samples=4']
    options += ['model.sampler.num_steps=2', 'default_hooks.logger.interval=1']
    options += ['default_hooks.runtime_info.interval=1']
    train(tmp_path, 4, *options, tiny=False)
    (events,) = tmp_path.glob('*/vis_data/events.out.tfevents*')
    found = EventAccumulator(str(events), size_guidance={'images': 0})
    found.Reload()
    assert found.Tags()['images'] == ['samples']
    shown = found.Images('samples')
    assert [image.step for image in shown] == [2, 4]
    on_disk = np.asarray(Image.open(tmp_path / 'samples/iter_4.png').convert('RGB'))
    in_events = np.asarray(Image.open(io.BytesIO(shown[1].encoded_image_string)))
    assert np.array_equal(in_events, on_disk)
    assert [scalar.step for scalar in found.Scalars('loss')] == [1, 2, 3, 4]


class Recorder:
    """A visualizer's backends that only write down what they are given."""

    def __init__(self, *kinds):
        self.shown = []
        self._vis_backends = {kind.__name__: self.backend(kind) for kind in kinds}

    def backend(self, kind):
        def add_image(backend, name, image, step=0):
            self.shown.append((kind.__name__, name, image.shape, step))

        return object.__new__(type('Backend', (kind,), dict(add_image=add_image)))


def test_other_backends_get_the_picture_once_and_the_local_one_none():
    recorder = Recorder(LocalVisBackend, WandbVisBackend, MLflowVisBackend)
    show_picture(recorder, 'samples', Image.new('L', (5, 3)), 70)
    assert recorder.shown == [
        ('WandbVisBackend', 'samples', (3, 5, 3), 70),
        ('MLflowVisBackend', 'samples/iter_70.png', (3, 5, 3), 70),
    ]
