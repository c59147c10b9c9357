"""The document comes back as it was written, and says what is wrong with a broken one."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lighten.errors import LightenError
from lighten.report.results import Totals, from_json, read_results, to_json, write_results


def test_everything_comes_back(make_results, tmp_path):
    results = make_results()
    write_results(results, tmp_path / "folder" / "results.json")
    assert read_results(tmp_path / "folder" / "results.json") == results
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["results.json"]


def test_defaults_come_back(make_results, tmp_path):
    bare = make_results(repair=None, parity=None, recovery=(), solves=(), before=Totals(1, 2, 3, 4))
    write_results(bare, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == bare


def test_fields_that_scripts_rely_on(make_results):
    document = to_json(make_results())
    assert {"out", "budget", "before", "after", "choices", "refused", "seconds"} <= set(document)
    assert {"params", "macs", "latency_ms", "accuracy", "accuracy_untrained"} <= set(document["after"])
    assert {"site", "rewrite", "options", "predicted_loss", "macs", "latency_ms"} <= set(document["choices"][0])
    assert document["refused"][0] == {"site": "fc", "rewrite": "spatial", "reason": "no window"}


def test_old_file_survives_a_failure(make_results, tmp_path):
    path = tmp_path / "results.json"
    write_results(make_results(), path)
    with pytest.raises(TypeError):
        write_results(make_results(machine={"cores": object()}), path)
    assert read_results(path) == make_results()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_number_that_is_not_finite_is_null_and_then_nan(make_results, tmp_path):
    results = make_results()
    broken = replace(results, recovery=(replace(results.recovery[0], loss=math.inf),))
    write_results(broken, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["recovery"][0]["loss"] is None
    assert math.isnan(read_results(tmp_path / "results.json").recovery[0].loss)


def test_numpy_scalars_become_numbers(make_results):
    document = to_json(make_results(seconds={"trace": np.float32(0.5)}))
    assert json.loads(json.dumps(document))["seconds"] == {"trace": 0.5}


def test_unknown_fields_are_left_out(make_results):
    document = to_json(make_results()) | {"from_the_future": 1}
    assert from_json(document) == make_results()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LightenError, match=r"cannot read '.*nothing\.json'"):
        read_results(tmp_path / "nothing.json")


@pytest.mark.parametrize("content", [b'{"version": 1', b"\xff\xfe\x00", b""])
def test_broken_json(content, tmp_path):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(LightenError, match="is not a JSON document"):
        read_results(tmp_path / "results.json")


def test_newer_version(make_results):
    with pytest.raises(LightenError, match="has version 99, but this lighten reads versions up to 1"):
        from_json(to_json(make_results()) | {"version": 99})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "eleven"}, "seed must be of type int, not str"),
        ({"threads": True}, "threads must be of type int, not bool"),
        ({"choices": {}}, "choices must be of type list, not dict"),
        ({"refused": [{"site": "fc"}]}, r"refused\[0\] has no field 'rewrite'"),
        ({"before": None}, "before must be of type dict, not NoneType"),
        ({"seconds": {"trace": "long"}}, r"seconds\.trace must be of type float, not str"),
    ],
)
def test_wrong_types_are_named(make_results, change, message):
    with pytest.raises(LightenError, match=message):
        from_json(to_json(make_results()) | change)


@pytest.mark.parametrize("document", [[], 3, None, "results"])
def test_not_an_object(document):
    with pytest.raises(LightenError, match="the results must be of type dict"):
        from_json(document)


def test_missing_field_is_named(make_results):
    document = to_json(make_results())
    del document["model"]
    with pytest.raises(LightenError, match="has no field 'model'"):
        from_json(document)
