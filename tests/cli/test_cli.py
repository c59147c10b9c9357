"""The command line: exit codes, one sentence for errors, one JSON document on standard output."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import lighten


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file for digits_vgg of 8 channels."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(lighten.build_model("digits_vgg:width=8").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    """A lightened folder made without training."""
    out = tmp_path_factory.mktemp("made") / "light"
    model = lighten.build_model("digits_vgg:width=8")
    lighten.models.weights.load_weights(model, weights)
    data = lighten.load_data("digits")
    lighten.shrink(model, data, "macs<=0.6x", out=out, name="digits_vgg:width=8", recipe=lighten.Recipe(epochs=0))
    return out


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in (
        "shrink",
        "plan",
        "evaluate",
        "count",
        "bench",
        "export",
        "report",
        "demo",
        "train",
        "compare",
        "lint",
        "advise",
    ):
        assert command in out


def test_count_as_json(run):
    code, out, _ = run("count", "resnet20", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["total"]["params"] == 269_722 and found["total"]["macs"] == 40_551_040
    first = {
        "name": "conv1", "kind": "conv2d", "output_shape": [16, 32, 32], "params": 432, "macs": 442_368, "calls": 1,
    }  # fmt: skip
    assert first.items() <= found["rows"][0].items()
    assert found["uncounted"] == [] and found["convention"] == "macs"


def test_count_as_another_tool_does(run):
    code, out, _ = run("count", "resnet20", "--convention", "flops", "--explain", "macs", "--json")
    found = json.loads(out)
    assert code == 0 and found["unit"] == "FLOPs" and found["total"]["macs"] == 2 * 40_551_040
    assert found["explanation"][-1] == "in all: macs 40,551,040, flops 81,102,080: +40,551,040"


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ("markdown", "| conv1 | conv2d-1 | 16×32×32 | 432 | 442,368 | 1 |"),
        ("csv", "conv1,conv2d,3x32x32,16x32x32,1,,442368,432,65536,"),
        ("text", "parameters: 269,722 (269,722 trainable, 0 not)"),
    ],
)
def test_count_in_other_shapes(run, shape, line):
    code, out, _ = run("count", "resnet20", "--format", shape)
    assert code == 0 and line in out


def test_limits_for_a_pipeline(run):
    assert run("count", "resnet20", "--fail-if", "macs>41M", "--fail-if", "params>300k")[0] == 0
    code, _, err = run("count", "resnet20", "--fail-if", "macs>40M", "--fail-if", "peak_bytes>=1KiB")
    assert code == 3 and "'resnet20' fails: macs>40M (40,551,040) and peak_bytes>=1KiB (" in err


def test_times_of_layers(run):
    code, out, _ = run("count", "digits_vgg:width=8", "--time", "--json")
    times = json.loads(out)["times"]
    assert code == 0 and times["onnxruntime_ms"] > 0 and times["roof"]["peak_gflops"] > 0
    assert times["rows"][0]["name"] == "features.0" and times["rows"][0]["pytorch_ms"] > 0


def test_inputs_of_several_tensors(run, tmp_path, monkeypatch):
    (tmp_path / "two_inputs.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.table = nn.Embedding(10, 4)\n        self.last = nn.Linear(4, 3)\n\n"
        "    def forward(self, ids, mask):\n        return self.last(self.table(ids) * mask[..., None])\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("count", "two_inputs:Net", "--input", "mask=1x5", "--input", "ids=1x5:int64", "--json")
    found = json.loads(out)
    assert code == 0 and found["total"]["macs"] == 5 * 12 and found["input"] == [[1, 5], [1, 5]]
    code, _, err = run("count", "two_inputs:Net", "--input", "mask=1x5", "--input", "1x5:int64")
    assert code == 2 and "name all inputs or none" in err
    code, _, err = run("count", "two_inputs:Net", "--input", "ids=1x5:int64", "--input", "mask=1x5", "--time")
    assert code == 2 and "times per layer need a network of one input tensor; 'two_inputs:Net' has 2" in err
    code, _, err = run("count", "two_inputs:Net", "--input", "1x5:int63", "--input", "1x5")
    assert code == 2 and "'int63' is no type of torch" in err


def test_count_for_people(run):
    code, out, _ = run("count", "resnet20", "--input", "1x3x64x64")
    assert code == 0 and f"{4 * (40_551_040 - 640) + 640:,}" in out


def test_shrink_as_json_then_refuses_to_mix(run, weights, tmp_path):
    out = tmp_path / "light"
    arguments = ["shrink", "digits_vgg:width=8", "--weights", str(weights), "--data", "digits"]
    arguments += ["--budget", "macs<=0.5x", "--epochs", "0", "--out", str(out), "--json"]
    code, printed, err = run(*arguments)
    found = json.loads(printed)
    assert code == 0 and "moments" in err
    assert found["out"] == str(out) and found["budget"] == ["macs<=0.5x"]
    assert found["after"]["macs"] <= 0.5 * found["before"]["macs"]
    assert {c["site"] for c in found["choices"]} and found["seconds"]["moments"] > 0
    assert sorted(p.name for p in out.iterdir()) == [
        "model.onnx", "plan.json", "report.html", "results.json", "weights.safetensors",
    ]  # fmt: skip
    code, printed, _ = run(*arguments)
    assert (
        code == 2
        and "exists: choose another --out, or replace it with --force" in json.loads(printed)["error"]["message"]
    )


def test_evaluate_a_folder(run, folder):
    code, out, _ = run("evaluate", str(folder), "--data", "digits", "--json")
    found = json.loads(out)
    assert code == 0 and found["metric"] == "top1" and found["num_samples"] == 360
    assert found["value"] == pytest.approx(json.loads((folder / "results.json").read_text())["after"]["accuracy"])


def test_plan_writes_a_plan_that_fits(run, weights, tmp_path):
    out = tmp_path / "plan.json"
    arguments = ["plan", "digits_vgg:width=8", "--weights", str(weights), "--data", "digits"]
    code, printed, _ = run(*arguments, "--budget", "macs<=0.5x", "--out", str(out))
    assert code == 0 and str(out) in printed.replace("\n", "")
    loaded = lighten.plan.plan.load_plan(out)
    assert loaded.model == "digits_vgg:width=8" and loaded.choices


def test_plan_refuses_a_drop(run, weights, tmp_path):
    arguments = ["plan", "digits_vgg:width=8", "--weights", str(weights), "--data", "digits"]
    code, _, err = run(*arguments, "--budget", "drop<=1", "--out", str(tmp_path / "p.json"))
    assert code == 2 and "use `lighten shrink`" in err


def test_bench_rows(run, folder):
    code, out, _ = run("bench", "digits_vgg:width=8", str(folder), "--seconds", "0.1", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0 and [row["model"] for row in rows] == ["digits_vgg:width=8", str(folder)]
    assert rows[0]["ratio"] == 1 and rows[1]["ratio"] == pytest.approx(rows[1]["median_ms"] / rows[0]["median_ms"])


def test_export_and_report(run, folder, tmp_path):
    code, out, _ = run("export", str(folder), "--out", str(tmp_path / "m.onnx"), "--json")
    assert code == 0 and json.loads(out)["parity"]["agrees"] is True
    (folder / "report.html").unlink()
    code, _, _ = run("report", str(folder))
    assert code == 0 and (folder / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["count", "resnet21"], 2, "there is no model 'resnet21'"),
        (["count", "resnet20", "--input", "3by32"], 2, "cannot read the input shape '3by32'"),
        (["count", "resnet20", "--input", "1x4x32x32"], 2, "the model fails on an input of shape (1, 4, 32, 32)"),
        (["evaluate", "resnet20", "--data", "nowhere"], 2, "nowhere"),
        (["count", "resnet20", "--format", "xml"], 2, "there is no format 'xml'"),
        (["count", "resnet20", "--fail-if", "macs>lots"], 2, "cannot read the limit 'macs>lots'"),
        (["count", "resnet20", "--fail-if", "speed>5"], 2, "the limit 'speed>5' is on no total of ours"),
        (["count"], 2, "Missing argument"),
        (["shrink", "resnet20", "--data", "digits", "--budget", "speed<=2", "--out", "x"], 2, "cannot read the budget"),
        (["evaluate", "tests", "--data", "digits"], 2, "holds no network of ours: plan.json is missing"),
    ],
)
def test_errors_are_one_sentence(run, arguments, code, sentence):
    found, out, err = run(*arguments)
    assert found == code and out == ""
    assert sentence in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    found, out, _ = run(*arguments, "--json")
    assert found == code and sentence in json.loads(out)["error"]["message"]


def test_an_impossible_budget_ends_with_3(run, weights, tmp_path):
    arguments = ["shrink", "digits_vgg:width=8", "--weights", str(weights), "--data", "digits", "--epochs", "0"]
    code, out, _ = run(*arguments, "--budget", "macs<=0.001x", "--out", str(tmp_path / "x"), "--json")
    message = json.loads(out)["error"]["message"]
    assert code == 3 and "at least" in message and "MACs are left" in message
    assert not (tmp_path / "x").exists()


def test_a_lightened_folder_is_not_lightened_again(run, folder, tmp_path):
    arguments = ["shrink", str(folder), "--data", "digits", "--budget", "macs<=0.5x", "--out", str(tmp_path / "y")]
    code, _, err = run(*arguments)
    assert code == 2 and "is lightened already" in err


def test_train_and_go_on_from_its_folder(run, tmp_path):
    arguments = ["--data", "digits", "--epochs", "1", "--recipe", "adamw:average_decay=0.5"]
    code, out, err = run("train", "digits_vgg:width=4", *arguments, "--out", str(tmp_path / "net"), "--json")
    found = json.loads(out)
    assert code == 0 and found["out"] == str(tmp_path / "net") and "train" in err
    assert found["model"] == "digits_vgg:num_classes=10,width=4" and found["recipe"]["average_decay"] == 0.5
    code, out, _ = run(
        "train", str(tmp_path / "net"), *arguments, "--rates", "features=0", "--out", str(tmp_path / "b")
    )
    assert code == 0 and "Weights to start from" in out and "net" in out
    first, second = (lighten.load(tmp_path / name) for name in ("net", "b"))
    assert torch.equal(first.features[0].weight, second.features[0].weight)
    assert not torch.equal(first.classifier[1].weight, second.classifier[1].weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "lion"], "there is no optimizer 'lion'; there are sgd, adamw"),
        (["--recipe", "sgd:mixup=much"], "the option 'mixup' of '--recipe' must be a number, not 'much'"),
        (["--recipe", "sgd:weight_decay=much"], "the option 'weight_decay' of '--recipe' must be a number, not 'much'"),
        (["--recipe", "sgd:epochs=3"], "'--recipe' has no option 'epochs'; it takes warmup, clip_norm"),
        (["--rates", "features"], "cannot read --rates 'features': write it as features=0.1,classifier=1"),
        (["--rates", "head=0.1"], "no parameter belongs to 'head'"),
    ],
)
def test_training_that_cannot_be(run, tmp_path, arguments, message):
    code, _, err = run("train", "digits_vgg:width=4", "--data", "digits", "--out", str(tmp_path / "net"), *arguments)
    assert code == 2 and message in " ".join(err.split()) and not (tmp_path / "net").exists()


def test_evaluate_text_lines(run, tmp_path):
    for n in range(12):
        Image.new("L", (30 + n, 10), 20 * n).save(tmp_path / f"{n}.png")
    (tmp_path / "labels.tsv").write_text("".join(f"{n}.png\tTotal: 5\n" for n in range(12)))
    code, out, _ = run("evaluate", "easyocr_english_g2", "--data", f"lines:{tmp_path}", "--json")
    found = json.loads(out)
    assert code == 0 and found["metric"] == "word_accuracy" and found["value"] == found["exact"] == 0
    assert found["cer"] > 0 and found["num_samples"] > 0 and "ignoring_case_and_spaces" in found
    code, _, err = run("evaluate", "crnn", "--data", f"lines:{tmp_path}")
    assert code == 2 and "the character ':', which is not in the alphabet" in " ".join(err.split())
