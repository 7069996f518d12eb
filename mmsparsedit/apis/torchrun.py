"""``torchrun`` that leaves its processes the time to save, and ends with their exit code.

``python -m mmsparsedit.apis.torchrun`` takes the arguments of ``torchrun``. Asked to stop by
SIGTERM, torch's own gives the processes 30 seconds and ends with 1, so that a scheduler cannot tell
a saved run from a failed one: here they have ``MMSPARSEDIT_GRACE`` seconds (default 600), and the
exit code is 143. Where all processes that failed did so with one code, that is the exit code.
"""

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

GRACE = 'MMSPARSEDIT_GRACE'


def main(arguments: list[str] | None = None) -> int:
    """Run ``torchrun``; returns the exit code."""
    grace = int(os.environ.get(GRACE, 600))
    close = PContext.close

    def patient_close(self, death_sig=None, timeout: int = 30) -> None:
        close(self, death_sig, max(timeout, grace))

    PContext.close = patient_close
    try:
        run.main(arguments)
    except SignalException as error:
        print(f'stopped by {error.sigval.name}, as were the processes', file=sys.stderr)
        return 128 + error.sigval
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        codes = {128 - code if code < 0 else code for code in codes}  # -15 is ended by SIGTERM
        rank, first = error.get_first_failure()
        print(
            f'the process of rank {rank} ended with {first.exitcode}; its messages stand above',
            file=sys.stderr,
        )
        return codes.pop() if len(codes) == 1 else 1
    finally:
        PContext.close = close
    return 0


if __name__ == '__main__':
    sys.exit(main())
