"""Training as a job: it learns, writes a folder that serves as MODEL, and says what is wrong."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import lighten
from lighten import LightenError, TrainRecipe, train
from lighten.opening import open_model, open_to_train
from lighten.train import text_loss

QUICK = TrainRecipe(epochs=2, optimizer="adamw", learning_rate=5e-3, average_decay=0.8, precision="32-true")
MODEL = "digits_vgg:width=4"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """digits_vgg of 4 channels, trained for two epochs; and its folder."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("trained") / "net"
    model, shown = lighten.build_model(MODEL), []
    before = copy.deepcopy(model.state_dict())
    data = lighten.load_data("digits")
    found = train(model, data, out=out, name=MODEL, recipe=QUICK, show=lambda *told: shown.append(told))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert shown[0][0] == "train" and "epoch 1/2" in shown[1][2]
    return found, out


def test_it_learns(made):
    found, _ = made
    results = found.results
    assert len(results.epochs) == 2 and results.epochs[1].loss < results.epochs[0].loss
    assert results.after.accuracy > 40 and results.after.held_out_accuracy > 40
    data = lighten.load_data("digits")
    assert lighten.evaluate(found.model, data.test).value == results.after.accuracy


def test_the_folder_is_a_model(made):
    found, out = made
    assert {path.name for path in out.iterdir()} == {"plan.json", "weights.safetensors", "results.json", "report.html"}
    opened = open_model(str(out))
    assert opened.text == MODEL and opened.input_shape == (1, 16, 16)
    x = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(opened.model(x), found.model(x))


def test_what_is_written(made):
    found, out = made
    written = json.loads((out / "results.json").read_text())
    assert written["model"] == MODEL and written["data"] == "digits" and written["weights"] is None
    assert written["recipe"]["learning_rate"] == 5e-3 and written["recipe"]["optimizer"] == "adamw"
    assert written["after"]["params"] == sum(p.numel() for p in found.model.parameters())
    assert [epoch["epoch"] for epoch in written["epochs"]] == [1, 2]
    page = (out / "report.html").read_text()
    assert "Learning curves" in page and "trained on digits" in page and "from scratch" in page


def test_a_trained_folder_can_be_trained_further(made, tmp_path, small_data):
    _, out = made
    opened = open_to_train(str(out), None, 10)
    assert opened.text == MODEL
    with pytest.raises(LightenError, match="has weights of its own"):
        open_to_train(str(out), "w.pt", 10)


@pytest.mark.parametrize(("weights", "rate"), [(None, 0.1), ("w.pt", 0.01)])
def test_learning_rates_by_default(trained, small_data, tmp_path, weights, rate):
    recipe = TrainRecipe(epochs=1, precision="32-true")
    found = train(trained, small_data, out=tmp_path / "net", weights=weights, recipe=recipe)
    assert found.results.recipe["learning_rate"] == pytest.approx(rate)
    assert found.results.recipe["weight_decay"] == 5e-4


def test_a_broken_training_goes_on(trained, small_data, tmp_path):
    recipe = replace(QUICK, checkpoint_minutes=-1.0)

    class Stop(Exception):
        pass

    def stop(stage: str, share: float, words: str) -> None:
        if share > 0.6:
            raise Stop

    with pytest.raises(Stop):
        train(trained, small_data, out=tmp_path / "net", recipe=recipe, show=stop)
    assert not (tmp_path / "net").exists()
    with pytest.raises(LightenError, match="holds an unfinished job"):
        train(trained, small_data, out=tmp_path / "net", recipe=recipe)
    resumed = train(trained, small_data, out=tmp_path / "net", recipe=recipe, resume=True)
    whole = train(trained, small_data, out=tmp_path / "other", recipe=recipe)
    assert resumed.results.epochs[0].loss == whole.results.epochs[0].loss
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(resumed.model(x), whole.model(x))


def test_without_test_data_the_held_out_slice_speaks(trained, small_data, tmp_path):
    found = train(trained, replace(small_data, test=None), out=tmp_path / "net", recipe=replace(QUICK, epochs=1))
    assert found.results.after.accuracy is None and found.results.num_test_samples == 0
    assert "held-out training samples" in (tmp_path / "net" / "report.html").read_text()


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), QUICK, "the model has 7 classes and the data 'small' have 10"),
        (nn.Conv2d(1, 10, 3), QUICK, r"gives outputs of shape \(1, 10, 6, 6\); needed is \(batch, classes\)"),
        (nn.Conv2d(3, 10, 3), QUICK, r"the model fails on an input of shape \(1, 1, 8, 8\): "),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
            replace(QUICK, optimizer="lion"),
            "there is no optimizer 'lion'; there are sgd, adamw",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
            replace(QUICK, rates={"head": 0.1}),
            "no parameter belongs to 'head'",
        ),
    ],
)
def test_refused(model, recipe, message, small_data, tmp_path):
    with pytest.raises(LightenError, match=message):
        train(model, small_data, out=tmp_path / "net", recipe=recipe)


def test_labels_are_needed(trained, small_data, tmp_path):
    unlabelled = replace(small_data.train, labels=torch.full_like(small_data.train.labels, -1))
    with pytest.raises(LightenError, match="the training data have samples without a label"):
        train(trained, replace(small_data, train=unlabelled), out=tmp_path / "net", recipe=QUICK)


def test_the_loss_of_a_recogniser_by_hand():
    logits = torch.randn(1, 2, 3)
    p = logits[0].softmax(-1)
    paths = p[0, 1] * p[1, 1] + p[0, 1] * p[1, 0] + p[0, 0] * p[1, 1]  # aa, a-, -a
    torch.testing.assert_close(text_loss(logits, torch.tensor([[1, 0]])), -paths.log())
    assert text_loss(logits, torch.tensor([[1, 1, 1]])) == 0  # three characters don't fit two steps


def test_an_existing_folder_stays(trained, small_data, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("mine")
    for force in (False, True):
        with pytest.raises(LightenError, match="'.*net'"):
            train(trained, small_data, out=tmp_path / "net", recipe=QUICK, force=force)
    assert (tmp_path / "net" / "mine").read_text() == "mine"


def test_classes_come_from_the_data():
    opened = open_to_train("digits_vgg:width=4", None, 7)
    assert opened.text == "digits_vgg:num_classes=7,width=4" and opened.model.classifier[-1].out_features == 7
    assert open_to_train("digits_vgg:num_classes=12", None, 7).model.classifier[-1].out_features == 12
