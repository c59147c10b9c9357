"""A small job's results, and one with as many layers as asked."""

from collections.abc import Callable

import pytest

from lighten.report.results import (
    Choice,
    Divergence,
    Epoch,
    Parity,
    Refused,
    Repair,
    Results,
    Solve,
    Totals,
)

REWRITES = (
    ("keep", {}),
    ("depthwise", {"rank": 2, "form": "parallel"}),
    ("spatial", {"rank": 8, "order": "vertical"}),
    ("tucker", {"rank_in": 4, "rank_out": 8}),
)


def make_choice(index: int) -> Choice:
    """The site `block{index}.conv`, with the rewrites in turn."""
    rewrite, options = REWRITES[index % len(REWRITES)]
    if rewrite == "keep":
        return Choice(f"block{index}.conv", rewrite, options, 0.0, 4000, 4000, 90, 90, 0.2, 0.2)
    return Choice(f"block{index}.conv", rewrite, options, 0.01 * index, 1000, 4000, 30, 90, 0.05, 0.2)


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    """Results of a job over `num_layers` sites, with every part filled; keywords replace fields."""

    def make(num_layers: int = 4, **changes: object) -> Results:
        choices = tuple(make_choice(index) for index in range(num_layers))
        given = {
            "lighten_version": "9.8.7",
            "model": "tinynet",
            "data": "digits",
            "out": "light",
            "input_shape": (3, 32, 32),
            "budget": ("latency<=0.5x", "drop<=0.5"),
            "runtime": "onnxruntime",
            "threads": 3,
            "batch": 5,
            "seed": 11,
            "machine": {"processor": "Abacus 3000", "cores": 2},
            "before": Totals(90_000, 4_000_000, 500_000, 360_000, 2.0, 1.9, 2.2, 91.73, None, 92.0),
            "after": Totals(30_000, 1_000_000, 600_000, 120_000, 0.8, 0.75, 0.9, 91.33, 81.0, 91.5),
            "num_test_samples": 10_000,
            "choices": choices,
            "refused": (Refused("fc", "spatial", "no window"), Refused("head", "spatial", "no window")),
            "divergence": (Divergence("block1.conv", "depthwise", 0.01, 0.02),),
            "recovery": (Epoch(1, 60.0, 0.9, 88.0, 0.03), Epoch(2, 120.0, 0.5, 91.5, 0.01)),
            "repair": Repair(0.41, 0.29),
            "parity": Parity(2e-6, 64, True),
            "solves": (Solve(1.0, 0.9, 1.1), Solve(0.8, 0.75, 0.8)),
            "seconds": {"trace": 0.5, "recover": 120.0},
            "uncounted": {"GridSample": 2},
            "notes": ("the cache was cold",),
        }
        return Results(**(given | changes))

    return make
