"""`lighten advise` on the command line."""

import json

import pytest

from lighten.cli import advising
from lighten.measure import latency_table
from lighten.measure.latency import Timing
from lighten.report import separable_chart
from lighten.report.separable_chart import Point

MODEL = "digits_vgg:width=8"


@pytest.fixture
def quick(monkeypatch):
    """Layers take a millisecond each, frames none; the chart's points are given."""

    def fake(calls: dict, seconds: float) -> dict[str, Timing]:
        return {name: Timing(0.0 if name in ("once", "twice") else 1.0, 0, 0, 1) for name in calls}

    monkeypatch.setattr(latency_table, "time_alternating", fake)
    points = [Point(64, 28, 3, 32, 3.0, 1.0)]
    asked = []

    def measure(clock, seconds, on_progress):
        asked.append((clock.runtime.name, clock.threads, seconds))
        return points

    monkeypatch.setattr(separable_chart, "measure_points", measure)
    return asked


def test_help_names_the_command(run):
    assert advising.advise.__doc__ and "advise" in run("--help")[1]


def test_advice_for_people(run):
    code, out, _ = run("advise", MODEL)
    words = " ".join(out.split())
    assert code == 0 and "features.3" in out and "pays by formula" in words and "leave alone" in words
    assert "by the clock" not in words and "Chart" not in out


def test_details_have_both_ranks(run):
    code, out, _ = run("advise", MODEL, "--details")
    assert code == 0 and "rank 1" in out and "vertical first" in out and "halves the MACs" in " ".join(out.split())


def test_json_by_formula(run):
    code, out, _ = run("advise", MODEL, "--json")
    found = json.loads(out)
    assert code == 0 and found["model"] == MODEL and found["clock"] is None and "machine" not in found
    assert {offer["faster"] for layer in found["layers"] for offer in layer["offers"]} == {None}
    assert found["layers"][0]["leave_alone"]


def test_json_by_the_clock(run, quick):
    code, out, err = run("advise", MODEL, "--time", "--threads", "2", "--json")
    found = json.loads(out)
    assert code == 0 and found["clock"] == "onnxruntime, 2 threads, batch 1" and found["machine"]["threads"] == 2
    assert {offer["faster"] for layer in found["layers"] for offer in layer["offers"]} == {1.0}
    assert "not by the clock (1×): leave it" in found["layers"][1]["verdict"] and "advise" in err


def test_another_input_gives_other_macs(run):
    code, out, _ = run("advise", "resnet20", "--input", "1x3x64x64", "--json")
    found = json.loads(out)
    assert code == 0 and found["input"] == [3, 64, 64] and found["layers"][0]["macs"] == 4 * 442_368


def test_the_chart(run, quick, tmp_path):
    path = tmp_path / "chart.html"
    code, out, _ = run("advise", MODEL, "--plot", str(path), "--seconds", "5", "--runtime", "pytorch")
    assert code == 0 and quick == [("pytorch", 1, 5.0)] and out.endswith(f"Chart: {path}\n")
    assert "pytorch, 1 thread, batch 1" in path.read_text()
    code, out, _ = run("advise", MODEL, "--plot", str(path), "--json")
    assert code == 0 and {"plot": str(path), "num_points": 1}.items() <= json.loads(out).items()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet21"], "there is no model 'resnet21'"),
        (["resnet20", "--runtime", "abacus"], "unknown runtime 'abacus'"),
        (["resnet20", "--plot", "chart.doc"], "its name must end in .html, .svg, .png"),
        (["resnet20", "--input", "1x4x32x32"], "the model fails on an input of shape (1, 4, 32, 32)"),
    ],
)
def test_errors_are_one_sentence(run, arguments, sentence):
    code, out, _ = run("advise", *arguments, "--json")
    assert code == 2 and sentence in json.loads(out)["error"]["message"]
