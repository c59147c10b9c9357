"""Limits for a pipeline: read as people write them, and broken with both figures."""

import pytest
import torch
from torch import nn

import lighten
from lighten.errors import BudgetError, LightenError
from lighten.network.limits import QUANTITIES, Limit, check_limits, parse_limit, parse_limits


@pytest.fixture(scope="module")
def table() -> lighten.CostTable:
    """A network of 20 parameters, 16 MACs, 4 activations and 80 bytes of weights."""
    return lighten.count(nn.Linear(4, 4), torch.zeros(1, 4), title="small")


@pytest.mark.parametrize(
    ("text", "quantity", "relation", "value"),
    [
        ("macs>600M", "macs", ">", 600e6),
        ("macs >= 1.5g", "macs", ">=", 1.5e9),
        ("params<200k", "params", "<", 200e3),
        ("PARAMS<=7", "params", "<=", 7),
        ("peak_bytes>64MiB", "peak_bytes", ">", 64 * 2**20),
        ("weight_bytes>64MB", "weight_bytes", ">", 64e6),
        ("activation_bytes>.5GiB", "activation_bytes", ">", 2**29),
        ("activations>1e6", "activations", ">", 1e6),
        ("effective_macs>2e-3kb", "effective_macs", ">", 2),
    ],
)
def test_limits_as_people_write_them(text, quantity, relation, value):
    assert parse_limit(text) == Limit(quantity, relation, pytest.approx(value), text)


def test_every_quantity_can_be_limited(table):
    for quantity in QUANTITIES:
        with pytest.raises(BudgetError, match=quantity):
            check_limits(table, parse_limits([f"{quantity}>=0"]))


@pytest.mark.parametrize("text", ["", "macs", "macs>", ">600M", "macs=600M", "macs>600X", "macs>600M extra", "macs>-1"])
def test_what_is_no_limit(text):
    with pytest.raises(LightenError) as raised:
        parse_limit(text)
    expected = f"cannot read the limit '{text}'; write 'macs>600M', 'params>5M' or 'peak_bytes>64MiB'"
    assert str(raised.value) == expected and raised.value.exit_code == 2


def test_unknown_quantities_are_named_with_their_neighbours():
    with pytest.raises(LightenError, match=r"the limit 'mac>1' is on no total of ours; did you mean macs"):
        parse_limit("mac>1")
    with pytest.raises(LightenError, match=r"on no total of ours: known are macs, params, activations"):
        parse_limit("zzz>1")


def test_the_borders(table):
    for text in ("macs>16", "macs<16", "params>=21", "params<=19", "weight_bytes>80"):
        check_limits(table, parse_limits([text]))
    for text in ("macs>=16", "macs<=16", "params>19", "params<21", "weight_bytes>79"):
        with pytest.raises(BudgetError):
            check_limits(table, parse_limits([text]))


def test_all_broken_limits_are_told_with_the_totals(table):
    limits = parse_limits([" macs>10 ", "activations>4", "params>0.019k"])
    with pytest.raises(BudgetError) as raised:
        check_limits(table, limits)
    assert str(raised.value) == "'small' fails: macs>10 (16) and params>0.019k (20)" and raised.value.exit_code == 3
    check_limits(table, [])


def test_macs_are_by_the_convention_of_the_table():
    table = lighten.count(nn.Linear(4, 4), torch.zeros(1, 4), convention="flops")
    with pytest.raises(BudgetError, match=r"macs>31 \(32\)"):
        check_limits(table, parse_limits(["macs>31"]))
