"""Numbers and choices in words."""

import math

import pytest

from lighten.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (96, "96"),
        (999, "999"),
        (1000, "1 k"),
        (1234, "1.23 k"),
        (40_813_184, "40.8 M"),
        (999_600, "1.00 M"),
        (3.2e9, "3.20 G"),
    ],
)
def test_count_text(value, text):
    assert wording.count_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12 B"), (1_090_000, "1.09 MB")])
def test_bytes_text(value, text):
    assert wording.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.8, "0.800 ms"), (12.345, "12.3 ms"), (None, "not measured"), (math.nan, "not measured")]
)
def test_ms_text(value, text):
    assert wording.ms_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(31, "31 s"), (0.25, "0.250 s"), (840, "14 min"), (9000, "2.50 h")])
def test_seconds_text(value, text):
    assert wording.seconds_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0123, "0.0123"), (3.1e-6, "3.10e-06"), (math.nan, "not finite")]
)
def test_loss_text(value, text):
    assert wording.loss_text(value) == text


@pytest.mark.parametrize(("before", "after", "text"), [(4, 1, "0.250×"), (0, 1, "–"), (None, 1, "–"), (2, 3, "1.50×")])
def test_ratio_text(before, after, text):
    assert wording.ratio_text(before, after) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(4, 1, "4× less"), (2, 3, "1.50× more"), (7, 7, "unchanged"), (None, 1, ""), (0, 1, "")],
)
def test_change_text(before, after, text):
    assert wording.change_text(before, after, "less", "more") == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (91.73, 91.32, "0.41 points lost"),
        (90.0, 91.5, "1.50 points gained"),
        (90.0, 90.0, "no points lost"),
        (None, 1.0, ""),
    ],
)
def test_points_text(before, after, text):
    assert wording.points_text(before, after) == text


def test_options_in_words():
    assert wording.options_text({"rank": 2, "form": "parallel"}) == "rank 2, parallel form"
    assert wording.options_text({"rank": 8, "order": "vertical", "form": "plain"}) == "rank 8, vertical first"
    assert wording.options_text({"rank_in": 4, "rank_out": 8}) == "rank in 4, rank out 8"


def test_unknown_rewrite_keeps_its_name():
    assert wording.rewrite_text("prune-blocks") == "prune-blocks"


def test_interval_agrees_with_published_values():
    """Wilson interval of 81 in 263 (Newcombe 1998, table I)."""
    low, high = wording.interval_of(100 * 81 / 263, 263)
    assert low == pytest.approx(25.53, abs=0.01)
    assert high == pytest.approx(36.62, abs=0.01)
    assert wording.interval_of(100.0, 10)[1] == pytest.approx(100.0)
    assert wording.interval_of(90.0, 0) is None
