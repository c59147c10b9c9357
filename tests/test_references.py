"""Names with options, and `package.module:callable`."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lighten.errors import LightenError
from lighten.references import check_options, join_options, load_callable, read_value, split_options

VALUES = st.one_of(
    st.integers(), st.booleans(), st.floats(allow_nan=False), st.from_regex(r"[a-z/._]+", fullmatch=True)
)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), VALUES))
def test_options_survive_a_round_trip(options):
    options = {key: read_value(value) if isinstance(value, str) else value for key, value in options.items()}
    assert split_options(join_options("images:/some/where", options)) == ("images:/some/where", options)


@pytest.mark.parametrize(
    ("text", "head", "options"),
    [
        ("resnet20", "resnet20", {}),
        ("resnet20:num_classes=7", "resnet20", {"num_classes": 7}),
        ("a.b:c:x=1, y=0.5,z=true,w=half", "a.b:c", {"x": 1, "y": 0.5, "z": True, "w": "half"}),
        ("images:/data/day=3/x", "images:/data/day=3/x", {}),
        ("C:x", "C:x", {}),
    ],
)
def test_split(text, head, options):
    assert split_options(text) == (head, options)


def test_options_are_written_in_order_and_lower_case():
    assert join_options("m", {"b": True, "a": 2}) == "m:a=2,b=true"


@pytest.mark.parametrize("tail", ["a=1,b", "a=1,=2", "a=", "a=1,"])
def test_broken_option(tail):
    with pytest.raises(LightenError, match="is not an option of the form key=value"):
        split_options(f"resnet20:{tail}")


def constructor(width: int = 4, rate: float = 0.5, deep: bool = False, form: str = "x"):
    return width, rate, deep, form


def test_options_that_fit():
    check_options("m", constructor, {"width": 3, "rate": 1, "deep": True, "form": "y"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "'m' has no option 'size'; it takes width, rate, deep"),
        ({"form": "y"}, "'m' has no option 'form'"),
        ({"width": "wide"}, "the option 'width' of 'm' must be a whole number, not 'wide'"),
        ({"width": True}, "must be a whole number, not 'True'"),
        ({"rate": "fast"}, "the option 'rate' of 'm' must be a number, not 'fast'"),
        ({"deep": 1}, "the option 'deep' of 'm' must be true or false, not '1'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(LightenError, match=message):
        check_options("m", constructor, options, without=("form",))


def test_no_options_are_taken():
    with pytest.raises(LightenError, match="'m' has no option 'size'; it takes none"):
        check_options("m", lambda: None, {"size": 1})


def test_any_option_is_taken():
    check_options("m", lambda **options: options, {"size": 1})


def test_callable_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text("def small(): return 3\nlimit = 4\n")
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('no such card\\nmore')\n")
    (tmp_path / "own_needy.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_callable("own_nets:small", "model")() == 3
    cases = {
        "own_nets:smal": "cannot load the model 'own_nets:smal': 'own_nets' has no 'smal'; did you mean small?",
        "own_nets:limit": "cannot load the model 'own_nets:limit': it is of type int, not callable",
        "own_broken:f": "cannot load the model 'own_broken:f': importing it fails: no such card$",
        "own_needy:f": "importing it fails: No module named 'not_there_at_all'",
        "own_nothing.deep:f": "cannot load the model 'own_nothing.deep:f': there is no module 'own_nothing'",
    }
    for text, message in cases.items():
        with pytest.raises(LightenError, match=message):
            load_callable(text, "model")


@pytest.mark.parametrize("text", ["a.b", "a.b:", ":f", "a b:f", "a:b:c", "a..b:f"])
def test_not_a_callables_name(text):
    with pytest.raises(LightenError, match=f"the data '{text}' is not of the form package.module:callable"):
        load_callable(text, "data")
