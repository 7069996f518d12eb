"""What each of several gloo processes does in ``test_scale.py`` (the ranks of one group).

The argument is a JSON file with a list of keyword arguments of ``runs.train``; the trainings run
one after the other. Differences of gradients go to ``gradients.json`` beside it.
"""

import json
import sys
from pathlib import Path

from mmengine.dist import master_only

from runs import train
from sharded_networks import NETWORKS, difference

if __name__ == '__main__':
    jobs = Path(sys.argv[1])
    for job in json.loads(jobs.read_text()):
        options = [*job.pop('options'), 'launcher=pytorch']
        train(job.pop('work_dir'), job.pop('iterations'), *options, tiny=False, **job)
    found: dict = {kind: [difference(kind, again) for again in (False, True)] for kind in NETWORKS}
    found['bf16'] = [
        difference('SparseDiT', again, weight_dtype='bfloat16') for again in (False, True)
    ]
    found['copies'] = [difference('SparseDiT', False, shard_size=size) for size in (1, 2)]
    master_only(jobs.with_name('gradients.json').write_text)(json.dumps(found))
