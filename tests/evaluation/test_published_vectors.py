"""Published numbers, for whoever sets MMSPARSEDIT_EVALUATION_FILES to a folder with the files."""

import os
from pathlib import Path

import pytest
import torch

from mmsparsedit.evaluation import ADMMetrics, I3DExtractor, frechet_distance, open_images
from mmsparsedit.evaluation.statistics import FeatureStatistics

FOLDER = Path(os.environ.get('MMSPARSEDIT_EVALUATION_FILES', 'nowhere'))
INCEPTION = FOLDER / 'weights-inception-2015-12-05-6726825d.pth'
REFERENCE = FOLDER / 'VIRTUAL_imagenet256_labeled.npz'
SAMPLES = FOLDER / 'admnet_guided_upsampled_imagenet256.npz'
I3D = FOLDER / 'i3d_torchscript.pt'


def need(*files):
    missing = [file.name for file in files if not file.is_file()]
    return pytest.mark.skipif(bool(missing), reason=f'{", ".join(missing)} not there')


@need(INCEPTION, REFERENCE, SAMPLES)
def test_adms_own_evaluation_of_its_upsampled_samples():
    """ADM, evaluations/README: TensorFlow's numbers; a PyTorch port differs by the resize."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    metric = ADMMetrics(
        REFERENCE, extractor={'type': 'InceptionExtractor', 'weights': INCEPTION}, device=device
    )
    index = 0
    for batch in open_images(SAMPLES).batches(64):
        metric.process(None, [{'image': x, 'index': index + i} for i, x in enumerate(batch)])
        index += len(batch)
    found = metric.evaluate(50_000)
    assert found['adm/fid'] == pytest.approx(3.94256, abs=0.005)
    assert found['adm/sfid'] == pytest.approx(6.14043, abs=0.005)
    assert found['adm/is'] == pytest.approx(215.837, abs=0.3)
    assert found['adm/precision'] == pytest.approx(0.8265, abs=0.003)
    assert found['adm/recall'] == pytest.approx(0.5309, abs=0.004)


@need(I3D)
def test_fvd_of_black_against_white_clips():
    extractor, moments = I3DExtractor(I3D), []
    for value in (0, 255):
        statistics = FeatureStatistics()
        clips = torch.full((8, 30, 3, 64, 64), value, dtype=torch.uint8)
        for clip in clips:
            statistics.update(extractor(clip[None]))
        moments += [statistics.mean, statistics.covariance]
    assert frechet_distance(*moments) == pytest.approx(151.256, abs=0.05)
