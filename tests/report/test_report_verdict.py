"""Budgets against what was measured."""

import pytest

from lighten.errors import LightenError
from lighten.report.results import Totals
from lighten.report.verdict import Verdict, verdicts

CASES = [
    ("latency<=0.5x", "0.400×", True),
    ("latency<=0.39x", "0.400×", False),
    ("latency<=0.4x", "0.400×", True),
    ("latency<=0.8ms", "0.800 ms", True),
    ("latency<=0.79ms", "0.800 ms", False),
    ("macs<=0.25x", "0.250×", True),
    ("macs<=0.2x", "0.250×", False),
    ("params<=30000", "30 k", True),
    ("drop<=0.4", "0.40 points", True),
    ("drop<=0.3", "0.40 points", False),
]


@pytest.mark.parametrize(("budget", "reached", "met"), CASES)
def test_verdict(make_results, budget, reached, met):
    assert verdicts(make_results(budget=(budget,))) == [Verdict(budget, reached, met)]


def test_what_was_not_measured_is_not_judged(make_results):
    bare = Totals(30_000, 1_000_000, 0, 0)
    found = verdicts(make_results(after=bare, budget=("latency<=0.5x", "drop<=1", "macs<=0.5x")))
    assert [verdict.met for verdict in found] == [None, None, True]
    assert found[0] == Verdict("latency<=0.5x", "not measured", None)


def test_no_budget_no_verdict(make_results):
    assert verdicts(make_results(budget=())) == []


def test_unreadable_budget(make_results):
    with pytest.raises(LightenError, match="cannot read the budget 'speed'"):
        verdicts(make_results(budget=("speed",)))
