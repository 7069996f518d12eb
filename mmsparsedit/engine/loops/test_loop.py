"""A test whose finished samples are kept, so that a killed one goes on where it was."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmengine.dist import barrier, get_dist_info
from mmengine.runner import TestLoop
from torch.utils.data import DataLoader, Subset

from mmsparsedit.evaluation.cache import digest_of
from mmsparsedit.evaluation.store import SampleStore
from mmsparsedit.registry import LOOPS

from ..results import sampling_recipe


@LOOPS.register_module()
class StoredTestLoop(TestLoop):
    """MMEngine's ``TestLoop`` through a ``SampleStore``: sample what is missing, then evaluate.

    The metrics read the stored samples in an order that does not depend on what was made when, so
    an interrupted test gives the numbers of an uninterrupted one.

    Args:
        samples_dir: folder of the samples; by default ``WORK_DIR/test_samples/`` and a hash of
            what decides them.
        npz: file for all samples in ADM's format, or None.
    """

    def __init__(
        self, runner, dataloader, evaluator, samples_dir: str | None = None, npz: str | None = None
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.samples_dir = samples_dir
        self.npz = npz

    def run(self) -> dict:
        """Sample the requests that have no sample yet, and measure all of them."""
        fingerprint = sampling_recipe(self.runner)
        fingerprint['checkpoint'] = digest_of(self.runner._load_from)
        folder = self.samples_dir
        if folder is None:
            text = json.dumps(fingerprint, sort_keys=True, default=str)
            name = hashlib.sha256(text.encode()).hexdigest()[:12]
            folder = Path(self.runner.work_dir) / 'test_samples' / name
        store = SampleStore(folder, fingerprint)
        self.store = store
        requests, batch_size = self.dataloader.dataset, self.dataloader.batch_size
        rank, world = get_dist_info()
        missing = store.missing(len(requests))
        barrier()  # every process has seen the same list before the first sample is added
        self.dataloader = DataLoader(
            Subset(requests, missing[rank::world]),
            batch_size=batch_size,
            collate_fn=self.dataloader.collate_fn,
        )
        if len(missing) < len(requests):
            self.runner.logger.warning(
                f'{len(requests) - len(missing)} of {len(requests)} samples are in {folder} already'
            )
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        with ThreadPoolExecutor(1) as writer:  # files are written while the next batch is sampled
            written = None
            for i, batch in enumerate(self.dataloader):
                self.runner.call_hook('before_test_iter', batch_idx=i, data_batch=batch)
                outputs = self.runner.model.test_step(batch)
                if written is not None:
                    written.result()  # raises what went wrong there
                written = writer.submit(store.add, outputs)
                self.runner.call_hook(
                    'after_test_iter', batch_idx=i, data_batch=batch, outputs=outputs
                )
            if written is not None:
                written.result()
        barrier()
        metrics = store.evaluate(self.evaluator, len(requests), batch_size, rank, world)
        if self.npz and rank == 0:
            store.export_npz(self.npz, len(requests))
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics
