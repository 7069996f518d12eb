"""What each of several gloo processes does in ``test_sharding.py`` (the ranks of one group).

The argument is a JSON file: ``trainings``, a list of keyword arguments of ``runs.train`` that run
one after the other, and ``differences``, lists of arguments of ``sharded_networks.difference`` by
name. What these find goes to ``differences.json`` beside it.
"""

import json
import sys
from pathlib import Path

from mmengine.dist import master_only

from runs import train
from sharded_networks import difference

if __name__ == '__main__':
    path = Path(sys.argv[1])
    jobs = json.loads(path.read_text())
    for job in jobs['trainings']:
        options = [*job.pop('options'), 'launcher=pytorch']
        train(job.pop('work_dir'), job.pop('iterations'), *options, tiny=False, **job)
    found = {
        name: [difference(**arguments) for arguments in cases]
        for name, cases in jobs['differences'].items()
    }
    master_only(path.with_name('differences.json').write_text)(json.dumps(found))
