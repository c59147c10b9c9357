"""Stages are told to the display, and their seconds add up."""

import pytest

from lighten import progress
from lighten.progress import Stages, silent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is: change it to let time pass."""
    now = [100.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(progress, "time", Clock)
    return now


def test_a_stage_tells_its_start_its_counts_and_its_end():
    told = []
    stages = Stages(lambda *what: told.append(what))
    with stages.stage("trace"):
        stages.count(1, 4)
        stages.count(0, 0)
    assert told == [("trace", 0.0, ""), ("trace", 0.25, "1/4"), ("trace", 0.0, "0/0"), ("trace", 1.0, "")]


def test_seconds_add_up_over_visits(clock):
    stages = Stages()
    for seconds in (1.5, 2.0):
        with stages.stage("solve"):
            clock[0] += seconds
    with stages.stage("repair"):
        clock[0] += 0.25
    assert stages.seconds == {"solve": 3.5, "repair": 0.25}


def test_a_stage_within_another(clock):
    told = []
    stages = Stages(lambda stage, share, words: told.append(stage))
    with stages.stage("outer"):
        with stages.stage("inner"):
            clock[0] += 1
            stages.count(1, 2)
        stages.count(1, 2)
        clock[0] += 1
    assert told == ["outer", "inner", "inner", "inner", "outer", "outer"]
    assert stages.seconds == {"inner": 1.0, "outer": 2.0} and stages.current == ""


def test_a_stage_that_fails_is_timed_and_closed(clock):
    stages = Stages()

    def fail() -> None:
        with stages.stage("trace"):
            clock[0] += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stages.seconds == {"trace": 1.0} and stages.current == ""


def test_silence():
    assert silent("trace", 0.5, "words") is None
