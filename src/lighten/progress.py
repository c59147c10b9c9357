"""How a job tells what it is doing, and how long each stage took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[str, float, str], None]


def silent(stage: str, share: float, words: str) -> None:
    """Shows nothing."""


class Stages:
    """The stages of one job: their seconds, and a display that is told (stage, share done, words)."""

    def __init__(self, show: OnProgress = silent):
        self.show, self.seconds = show, {}
        self.current = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside, adding up over several visits."""
        outer, self.current = self.current, name
        start = time.monotonic()
        self.show(name, 0.0, "")
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)
            self.show(name, 1.0, "")
            self.current = outer

    def count(self, done: int, total: int) -> None:
        """Tell the display how much of the current stage is done."""
        self.show(self.current, done / max(total, 1), f"{done}/{total}")
