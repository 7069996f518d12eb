"""What videos are compared with: own npz files with ``mu_i3d``, or folders of videos."""

import hashlib
import os

from mmsparsedit.utils.npz import NpzArray

from .cache import cached
from .references import Moments, Reference, check_features, read_moments, read_provenance
from .statistics import FeatureStatistics
from .videos import REAL, ClipProtocol, VideoFolder

VIDEO_KEYS = ('mu_i3d', 'sigma_i3d')
COVARIANCE = 'divided by N'  # StyleGAN-V, metric_utils.py; ADM's is divided by N - 1


class VideoReference(Reference):
    """Reference of FVD: an own npz with ``mu_i3d``, or a folder of videos cut by a protocol.

    Args:
        protocol: how clips are cut from a folder, by default :data:`REAL`; of an npz it is known,
            and another one is refused.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        protocol: ClipProtocol | None = None,
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 8,
    ) -> None:
        super().__init__(path, cache_dir, batch_size)
        self._videos: VideoFolder | None = None
        if self.path.is_dir():
            self._videos = VideoFolder(self.path, protocol or REAL)
            self.provenance = video_provenance(self._videos)
            return
        keys = NpzArray.keys(self.path)
        if not set(VIDEO_KEYS) <= set(keys) or 'provenance' not in keys:
            raise ValueError(
                f'got {self.path} with the keys {keys}, expected mu_i3d, sigma_i3d, provenance: '
                'build it with tools/dataset_converters/build_reference.py --video'
            )
        self.provenance = read_provenance(self.path)
        if self.provenance.get('covariance') != COVARIANCE:
            raise ValueError(
                f'got {self.path} with a covariance divided by N - 1, expected one '
                f'{COVARIANCE} as StyleGAN-V takes it: build the reference again'
            )
        if protocol is not None and protocol.as_dict() != self.provenance['protocol']:
            raise ValueError(
                f'got the protocol {protocol.as_dict()}, expected {self.provenance["protocol"]} '
                f'that {self.path} was built with: leave it out or build another reference'
            )

    @property
    def num_frames(self) -> int:
        """Frames of one clip; samples must have as many."""
        return int(self.provenance['protocol']['num_frames'])

    @property
    def size(self) -> tuple[int, int]:
        """Pixels (H, W) of the clips."""
        return tuple(self.provenance['size'])

    def require(self, extractor) -> None:
        """Refuse statistics that another network made."""
        if self._videos is None:
            check_features(self.path, self.provenance, extractor)

    def moments(self, extractor) -> Moments:
        """Moments of the I3D features."""
        if self._videos is None:
            return read_moments(self.path, VIDEO_KEYS)
        inputs = {
            'videos': self.digest,
            'features': extractor.description,
            'protocol': self._videos.protocol.as_dict(),
            'covariance': COVARIANCE,
        }

        def make() -> dict:
            moments = video_moments(self._videos, extractor, self.batch_size)
            return dict(zip(VIDEO_KEYS, (moments.mean, moments.covariance), strict=True))

        arrays = cached(self.cache_dir, inputs, make)
        return Moments(*(arrays[key] for key in VIDEO_KEYS))


def video_moments(videos: VideoFolder, extractor, batch_size: int = 8) -> Moments:
    """Moments of the I3D features of the clips of a folder."""
    statistics = FeatureStatistics()
    for clips in videos.batches(batch_size):
        statistics.update(extractor(clips))
    return Moments(statistics.mean, statistics.biased_covariance)


def video_provenance(videos: VideoFolder) -> dict:
    """What was compared with, for the recipe: protocol, counts, hash of the list of videos."""
    return {
        'source': str(videos.path),
        'protocol': videos.protocol.as_dict(),
        'covariance': COVARIANCE,
        'size': list(videos.size),
        'count': len(videos),
        'left_out_as_too_short': len(videos.left_out),
        'list_sha256': hashlib.sha256('\n'.join(videos.videos).encode()).hexdigest(),
    }
