"""What a run says on the console: one line of progress."""

import sys
import time

INTERVAL = 10.0  # seconds between lines where there is no terminal


class ProgressLine:
    """A bar, a count and what is left of the time, from ``done`` to ``total``.

    On a terminal the line is rewritten in place; elsewhere (a log of a scheduler) one is printed
    every ten seconds.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total = total
        self.first = done
        self._began = self._shown_at = time.perf_counter()

    def due(self, done: int) -> bool:
        wait = 0.5 if sys.stdout.isatty() else INTERVAL
        return done >= self.total or time.perf_counter() - self._shown_at >= wait

    def rate(self, done: int) -> float:
        """Of what is counted, a second."""
        return (done - self.first) / (time.perf_counter() - self._began)

    def show(self, done: int, before: str = '', after: str = '') -> None:
        """``[####----] <before>done/total<after>  ETA h:mm:ss``."""
        self._shown_at = time.perf_counter()
        filled = 20 * done // self.total
        left = int((self.total - done) / self.rate(done)) if done > self.first else 0
        line = (
            f'[{"#" * filled}{"-" * (20 - filled)}] {before}{done}/{self.total}{after}  '
            f'ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}'
        )
        if not sys.stdout.isatty():
            say(line)
            return
        end = '\n' if done >= self.total else ''
        sys.stdout.write(f'\r{line}\x1b[K{end}')  # clears what a longer line left
        sys.stdout.flush()


def say(line: str) -> None:
    sys.stdout.write(line + '\n')
    sys.stdout.flush()
