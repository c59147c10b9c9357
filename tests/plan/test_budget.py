"""Every way to write a budget, what each mistake is told, and that a bound's text gives the bound back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lighten.errors import LightenError
from lighten.plan.budget import EXAMPLES, QUANTITIES, Bound, parse_budget


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("latency<=0.5x", Bound("latency", 0.5, True)),
        ("latency<=3ms", Bound("latency", 3.0, False)),
        ("latency<=250us", Bound("latency", 0.25, False)),
        ("latency<=0.1s", Bound("latency", 100.0, False)),
        ("macs<=0.35x", Bound("macs", 0.35, True)),
        ("macs<=.5x", Bound("macs", 0.5, True)),
        ("macs<=40000000", Bound("macs", 4e7, False)),
        ("macs<=40M", Bound("macs", 4e7, False)),
        ("macs<=1.5g", Bound("macs", 1.5e9, False)),
        ("macs<=4e7", Bound("macs", 4e7, False)),
        ("params<=200k", Bound("params", 2e5, False)),
        (" Params <= 200 K ", Bound("params", 2e5, False)),
        ("drop<=0.5", Bound("drop", 0.5, False)),
        ("drop<=0", Bound("drop", 0.0, False)),
    ],
)
def test_every_form(text: str, bound: Bound):
    assert parse_budget(text) == (bound,)


def test_several_bounds_in_one_text_or_in_several():
    expected = (Bound("latency", 0.5, True), Bound("macs", 0.3, True), Bound("drop", 1.0, False))
    assert parse_budget("latency<=0.5x, macs<=0.3x,drop<=1") == expected
    assert parse_budget(["latency<=0.5x", "macs<=0.3x, drop<=1"]) == expected


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ([], f"a budget is needed, for example {EXAMPLES}"),
        ("", f"cannot read the budget ''; write {EXAMPLES}"),
        ("macs<=0.5x,", f"cannot read the budget ''; write {EXAMPLES}"),
        ("fast", f"cannot read the budget 'fast'; write {EXAMPLES}"),
        (" flops<=0.5x ", f"cannot read the budget 'flops<=0.5x'; write {EXAMPLES}"),
        ("macs<0.5x", f"cannot read the budget 'macs<0.5x'; write {EXAMPLES}"),
        ("macs<=-1", f"cannot read the budget 'macs<=-1'; write {EXAMPLES}"),
        ("macs<=1.2.3x", f"cannot read the budget 'macs<=1.2.3x'; write {EXAMPLES}"),
        ("latency<=3", f"the budget 'latency<=3' has the wrong unit ''; write {EXAMPLES}"),
        ("latency<=3k", f"the budget 'latency<=3k' has the wrong unit 'k'; write {EXAMPLES}"),
        ("params<=3ms", f"the budget 'params<=3ms' has the wrong unit 'ms'; write {EXAMPLES}"),
        ("drop<=0.5x", f"the budget 'drop<=0.5x' has the wrong unit 'x'; write {EXAMPLES}"),
        ("drop<=0.5%", f"the budget 'drop<=0.5%' has the wrong unit '%'; write {EXAMPLES}"),
        ("macs<=0x", "the budget 'macs<=0x' leaves nothing: its limit must be positive"),
        ("latency<=0ms", "the budget 'latency<=0ms' leaves nothing: its limit must be positive"),
        ("latency<=0.5x,latency<=3ms", "the budget bounds latency twice"),
        (["macs<=1k,params<=1k", "params<=1k,macs<=2k"], "the budget bounds macs, params twice"),
    ],
)
def test_mistakes(given_text: str | list[str], message: str):
    with pytest.raises(LightenError) as caught:
        parse_budget(given_text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


bounds = st.builds(
    lambda quantity, limit, relative: Bound(quantity, limit, relative and quantity != "drop"),
    st.sampled_from(QUANTITIES),
    st.floats(1e-6, 1e12).map(lambda limit: float(f"{limit:.11g}")),
    st.booleans(),
)


@given(bounds)
def test_the_text_of_a_bound_gives_it_back(bound: Bound):
    assert parse_budget(str(bound)) == (bound,)


def test_large_counts_keep_their_digits():
    assert str(Bound("params", 1_234_567.0, False)) == "params<=1234567"


def test_relative_bounds_are_shares_of_the_original():
    assert Bound("macs", 0.25, True).absolute(400) == 100
    assert Bound("macs", 0.25, False).absolute(400) == 0.25
