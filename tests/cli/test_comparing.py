"""`lighten compare` and `lighten lint`: their JSON, their tables, and what they refuse."""

import json
from pathlib import Path

import pytest

ZOO = Path(__file__).parents[2] / "zoo"
FOLDER = str(ZOO / "resnet20-cifar10-latency0.5")


def test_a_lightened_folder_with_its_original(run):
    results = json.loads((Path(FOLDER) / "results.json").read_text())
    code, out, _ = run("compare", FOLDER, "--json")
    found = json.loads(out)
    assert code == 0 and found["before"]["model"] == "resnet20"
    for side in ("before", "after"):
        assert [found[side][key] for key in ("params", "macs")] == [results[side][key] for key in ("params", "macs")]
        assert {"activation_bytes", "weight_bytes", "peak_bytes"} < found[side].keys() and found[side][
            "uncounted"
        ] == []
    assert found["ratio"]["macs"] == results["before"]["macs"] / results["after"]["macs"]
    row = next(row for row in found["rows"] if row["name"] == "layer1.0.conv1")
    assert row["change"] == "depthwise" and len(row["after"]["layers"]) == 4
    assert "runtime" not in found and "latency_ms" not in found["before"]


def test_both_named_is_the_same(run):
    _, alone, _ = run("compare", FOLDER, "--json")
    _, both, _ = run("compare", "resnet20", FOLDER, "--json")
    assert json.loads(alone) == json.loads(both)


def test_another_original_than_the_plans(run):
    code, out, _ = run("compare", "resnet32", FOLDER, "--json")
    changes = {row["name"]: row["change"] for row in json.loads(out)["rows"]}
    assert code == 0 and changes["layer1.0.conv1"] == "replaced" and changes["layer1.3.conv1"] == "removed"


def test_formats(run):
    pair = ("compare", "crnn", "crnn_separable")
    assert "4.78×" in run(*pair)[1]
    assert "- MACs: 2,216,913,408 → 463,848,960 (4.78×)" in run(*pair, "--format", "markdown")[1]
    assert "MACs: 2,216,913,408 → 463,848,960 (4.78×)" in run(*pair, "--format", "text")[1]
    assert run(*pair, "--format", "json")[1] == run(*pair, "--json")[1]


def test_another_input_changes_both_sides(run):
    _, out, _ = run("compare", "resnet20", "resnet20", "--input", "1x3x64x64", "--json")
    found = json.loads(out)
    assert found["before"]["macs"] == found["after"]["macs"] == 4 * (40_551_040 - 640) + 640


def test_latency_on_request(run):
    code, out, _ = run(
        *("compare", "digits_vgg:width=4", "digits_vgg:width=8", "--time", "--seconds", "0.1"),
        *("--runtime", "pytorch", "--threads", "1", "--json"),
    )
    found = json.loads(out)
    assert code == 0 and found["runtime"] == "pytorch" and found["machine"]["threads"] == 1
    times = [found[side]["latency_ms"] for side in ("before", "after")]
    assert min(times) > 0 and found["ratio"]["latency_ms"] == times[0] / times[1]
    assert found["rows"][0]["before"]["latency_ms"] > 0


def test_findings(run):
    code, out, _ = run("lint", "crnn_separable", "--json")
    found = json.loads(out)
    assert code == 0 and found["model"] == "crnn_separable"
    assert [(f["rule"], f["layer"], f["params"]) for f in found["findings"]][:2] == [
        ("one_channel_stem", "features.0", 0), ("bias_before_norm", "features.9", 256),
    ]  # fmt: skip
    code, out, _ = run("lint", "crnn_separable")
    assert code == 0 and "features.9" in out and "256" in out
    assert run("lint", "resnet20")[:2] == (0, "resnet20: nothing found\n")
    assert json.loads(run("lint", "vgg16_bn", "--input", "1x3x224x224", "--json")[1])["findings"][0]["layer"] == (
        "features.0"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "resnet20"], "'resnet20' isn't the folder of a lightened network: name another one"),
        (["compare", "resnet20", "resnet21"], "there is no model 'resnet21'"),
        (["compare", "resnet20", "resnet20", "--format", "csv"], "there is no format 'csv': known are table, text"),
        (["lint", "resnet20", "--input", "1x4x32x32"], "the model fails on an input of shape (1, 4, 32, 32)"),
    ],
)
def test_errors_are_one_sentence(run, arguments, sentence):
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and sentence in err and len(err.strip().splitlines()) == 1


def test_only_single_inputs_are_timed(run, tmp_path, monkeypatch):
    (tmp_path / "pairs.py").write_text(
        "from torch import nn\n\nclass Pair(nn.Module):\n    def forward(self, a, b):\n        return a + b\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    both = ("compare", "pairs:Pair", "pairs:Pair", "--input", "1x3", "--input", "1x3")
    assert run(*both)[0] == 0
    code, _, err = run(*both, "--time")
    assert code == 2 and "--time knows networks of one input only" in err
