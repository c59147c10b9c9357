"""The plan as a file: read back, checked entry by entry, and refused with the entry's name."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lighten.errors import LightenError
from lighten.plan.plan import Choice, Plan, check_plan, load_plan

LOW_RANK = Choice("3", "low-rank", {"rank": 4, "form": "plain"})
DEPTHWISE = Choice("7", "depthwise", {"rank": 2, "form": "concat"})
PLAN = Plan("resnet20", (1, 8, 8), (LOW_RANK, DEPTHWISE))
OPTIONS = st.fixed_dictionaries(
    {"rank": st.integers(1, 99)},
    optional={"order": st.sampled_from(["vertical", "horizontal"]), "form": st.text(max_size=5)},
)
PLANS = st.builds(
    Plan,
    st.none() | st.text(max_size=9),
    st.lists(st.integers(1, 512), max_size=4).map(tuple),
    st.lists(
        st.builds(Choice, st.text(min_size=1, max_size=9), st.sampled_from(["depthwise", "spatial"]), OPTIONS)
    ).map(tuple),
)


@given(plan=PLANS)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, plan: Plan):
    path = tmp_path_factory.getbasetemp() / "plan.json"
    plan.save(path)
    assert load_plan(path) == plan


def test_the_file_is_short_json_with_a_version(tmp_path: Path):
    PLAN.save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert list(content) == ["version", "model", "input_shape", "choices"] and content["version"] == 1
    assert content["choices"][0] == {"site": "3", "rewrite": "low-rank", "options": {"rank": 4, "form": "plain"}}


def test_the_model_may_be_left_out(tmp_path: Path):
    (tmp_path / "plan.json").write_text('{"version": 1, "input_shape": [1, 8, 8], "choices": []}')
    assert load_plan(tmp_path / "plan.json") == Plan(None, (1, 8, 8), ())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 2, "$.version: 1 was expected"),
        (("input_shape",), [0, 8], "$.input_shape[0]: 0 is less than the minimum of 1"),
        (("model",), 3, "$.model: 3 is not of type 'string', 'null'"),
        (("choices",), {}, "$.choices: {} is not of type 'array'"),
        (("choices", 1), {"site": "7"}, "$.choices[1]: 'rewrite' is a required property"),
        (("choices", 1, "site"), "", "$.choices[1].site: '' should be non-empty"),
        (("choices", 0, "site"), 3, "$.choices[0].site: 3 is not of type 'string'"),
        (
            ("choices", 1, "rewrite"),
            "magic",
            "$.choices[1].rewrite: 'magic' is not one of ['depthwise', 'blueprint', 'spatial', 'tucker', 'low-rank']",
        ),
        (("choices", 0, "options", "rank"), 0, "$.choices[0].options.rank: 0 is less than the minimum of 1"),
        (("choices", 0, "options", "rank"), "4", "$.choices[0].options.rank: '4' is not of type 'integer'"),
        (("choices", 0, "options", "rank"), True, "$.choices[0].options.rank: True is not of type 'integer'"),
        (
            ("choices", 0, "options", "order"),
            "up",
            "$.choices[0].options.order: 'up' is not one of ['vertical', 'horizontal']",
        ),
        (
            ("choices", 0, "options", "ranks"),
            4,
            "$.choices[0].options: Additional properties are not allowed ('ranks' was unexpected)",
        ),
        (
            ("choices", 0, "note"),
            "x",
            "$.choices[0]: Additional properties are not allowed ('note' was unexpected)",
        ),
        (("author",), "x", "$: Additional properties are not allowed ('author' was unexpected)"),
    ],
)
def test_the_schema_names_the_entry(tmp_path: Path, place: tuple, value: object, message: str):
    path = tmp_path / "plan.json"
    PLAN.save(path)
    content = json.loads(path.read_text())
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(LightenError) as caught:
        load_plan(path)
    assert str(caught.value) == f"the plan '{path}' is wrong at {message}"


@pytest.mark.parametrize("field", ["version", "input_shape", "choices"])
def test_required_fields(tmp_path: Path, field: str):
    content = {"version": 1, "input_shape": [1], "choices": []}
    del content[field]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(LightenError, match=rf"is wrong at \$: '{field}' is a required property"):
        load_plan(tmp_path / "p.json")


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "choi', b"\xff\xfe", b"{]"])
def test_broken_json(tmp_path: Path, content: bytes):
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(LightenError, match=f"the plan '{tmp_path}/p.json' isn't JSON: "):
        load_plan(tmp_path / "p.json")


def test_a_plan_cut_at_any_place_is_refused(tmp_path: Path):
    PLAN.save(tmp_path / "p.json")
    whole = (tmp_path / "p.json").read_text()
    for length in range(0, len(whole) - 2, 7):
        (tmp_path / "p.json").write_text(whole[:length])
        with pytest.raises(LightenError, match="isn't JSON"):
            load_plan(tmp_path / "p.json")


def test_a_missing_plan(tmp_path: Path):
    with pytest.raises(LightenError) as caught:
        load_plan(tmp_path / "p.json")
    assert str(caught.value) == f"no plan at '{tmp_path}/p.json'"


def network() -> nn.Module:
    """The same names as the trained one of the other tests; layer 8 has one channel."""
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3))


def test_a_fitting_plan_passes():
    check_plan(PLAN, network())
    check_plan(Plan(None, (1, 8, 8), (Choice("3", "low-rank", {"rank": 4}),)), network())


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            Choice("layer1.conv", "low-rank", {"rank": 4}),
            "the plan is for another network: choices[1] ('layer1.conv') names a layer that this one doesn't have",
        ),
        (LOW_RANK, "the plan names a site twice: choices[1] ('3')"),
        (Choice("4", "low-rank", {"rank": 4}), "choices[1] ('4'): a BatchNorm2d can't be rewritten"),
        (
            Choice("6", "depthwise", {"rank": 1}),
            "choices[1] ('6'): depthwise refuses it: its kernel is 1×1: there is nothing to separate",
        ),
        (
            Choice("0", "depthwise", {"rank": 1}),
            "choices[1] ('0'): depthwise refuses it: it has one input channel: every output map would be a multiple "
            "of one filtered image",
        ),
        (Choice("7", "low-rank", {"rank": 17}), "choices[1] ('7'): rank must be 1…16"),
        (Choice("7", "depthwise", {"rank": 10}), "choices[1] ('7'): rank must be 1…9"),
        (Choice("7", "tucker", {"rank_in": 4, "rank_out": 17}), "choices[1] ('7'): rank_out must be 1…16"),
        (Choice("7", "tucker", {"rank_in": 4}), "choices[1] ('7'): options lack 'rank_out'"),
        (Choice("7", "low-rank", {}), "choices[1] ('7'): options lack 'rank'"),
        (Choice("7", "low-rank", {"rank": "4"}), "choices[1] ('7'): options are of the wrong type"),
        (Choice("7", "spatial", {"rank": 4}), "choices[1] ('7'): order must be 'vertical' or 'horizontal'"),
        (
            Choice("7", "depthwise", {"rank": 2, "form": "plain"}),
            "choices[1] ('7'): unknown form 'plain'; known: parallel, multiplier, concat, repeat",
        ),
        (
            Choice("7", "low-rank", {"rank": 2, "form": "fast"}),
            "choices[1] ('7'): unknown form 'fast'; known: plain",
        ),
    ],
)
def test_an_entry_that_does_not_fit_is_named(choice: Choice, message: str):
    with pytest.raises(LightenError) as caught:
        check_plan(Plan(None, (1, 8, 8), (LOW_RANK, choice)), network())
    assert str(caught.value) == message
