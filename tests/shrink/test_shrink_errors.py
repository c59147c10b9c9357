"""Wrong input and budgets that can't be met: one sentence each, and nothing is left behind."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lighten import BudgetError, LightenError, Recipe, Settings, shrink
from lighten.data.batches import Data
from lighten.plan.plan import Choice, Plan

NONE = Recipe(epochs=0)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            "macs<=10",
            r"the budget can't be met: at least [\d,.e+]+ MACs are left whatever is chosen, and 10 were asked",
        ),
        ("latency<=0.001x", r"the budget can't be met: at least 0\.\d+ ms are left whatever is chosen, and 0\.0"),
        (["params<=0.06x", "macs<=0.06x"], "the budget can't be met: at least "),
    ],
)
def test_an_infeasible_budget_names_the_nearest(trained, small_data, tmp_path, budget, message):
    with pytest.raises(BudgetError, match=message) as caught:
        shrink(trained, small_data, budget, out=tmp_path / "net", recipe=NONE)
    assert caught.value.exit_code == 3 and not (tmp_path / "net").exists()


def with_calibration(data: Data, inputs: Tensor) -> Data:
    return replace(data, calibration=[(inputs, torch.zeros(len(inputs), dtype=torch.long))])


class Failing(nn.Sequential):
    """Fails on every input."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nand a long trace")


WRONG = {
    "classes": "the model has 12 classes and the data 'small' have 10",
    "nan": "the calibration data of 'small' hold values that aren't finite (NaN or infinity)",
    "empty": "the data 'small' hold no calibration images",
    "shape": "the model fails on an input of shape (1, 3, 8, 8) in '0' (Conv2d), which is given (1, 3, 8, 8): "
    "Given groups=1, weight of size [12, 1, 3, 3], expected input[1, 3, 8, 8] to have 1 channels, "
    "but got 3 channels instead",
    "failing": "the model fails on an input of shape (1, 1, 8, 8): no kernel",
    "maps": "the model gives outputs of shape (2, 16, 4, 4); needed is (batch, classes)",
    "method": "there is no method 'tuker'; did you mean tucker?",
    "keep": "there is no layer 'head' to keep",
    "budget": "the budget 'latency<=3' has the wrong unit ''; write 'latency<=0.5x', 'latency<=3ms', "
    "'macs<=0.35x', 'params<=200k' or 'drop<=0.5'",
    "nothing left": "no layer of this network can be rewritten ('0': kept by request; '11': kept by request; "
    "'3': kept by request)",
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_one_sentence(trained, small_data, tmp_path, case: str):
    model, data, budget, settings = trained, small_data, "macs<=0.5x", Settings()
    match case:
        case "classes":
            model[11] = nn.Linear(256, 12)
        case "nan":
            data = with_calibration(data, torch.full((4, 1, 8, 8), math.nan))
        case "empty":
            data = replace(data, calibration=[])
        case "shape":
            data = with_calibration(data, torch.zeros(4, 3, 8, 8))
        case "failing":
            model = Failing(*model)
        case "maps":
            model = model[:10]
        case "method":
            settings = Settings(methods=("tuker",))
        case "keep":
            settings = Settings(keep=("head",))
        case "budget":
            budget = "latency<=3"
        case "nothing left":
            settings = Settings(keep=("0", "3", "7", "11"))
    with pytest.raises(LightenError) as caught:
        shrink(model, data, budget, out=tmp_path / "net", settings=settings, recipe=NONE)
    assert str(caught.value) == WRONG[case] and caught.value.exit_code == 2
    assert not (tmp_path / "net").exists()


def test_a_mistake_leaves_no_unfinished_job_behind(trained, small_data, tmp_path):
    with pytest.raises(LightenError, match="there is no method 'magic'; known are depthwise, "):
        shrink(trained, small_data, "macs<=0.5x", out=tmp_path / "net", settings=Settings(methods=("magic",)))
    assert shrink(trained, small_data, "macs<=0.5x", out=tmp_path / "net", recipe=NONE).plan.choices


def test_a_nan_inside_the_network_is_named(trained, small_data, tmp_path):
    trained[1].weight.data[2] = math.nan
    with pytest.raises(LightenError, match="calibration: the layer '.' meets values that aren't finite"):
        shrink(trained, small_data, "macs<=0.5x", out=tmp_path / "net", recipe=NONE)


def test_a_plan_and_a_budget_are_one_too_many(trained, small_data, tmp_path):
    plan = Plan(None, (1, 8, 8), (Choice("3", "low-rank", {"rank": 4}),))
    with pytest.raises(LightenError, match="give a budget or a plan, not both"):
        shrink(trained, small_data, "macs<=0.5x", plan=plan, out=tmp_path / "net")
    kept = Settings(keep=("3",))
    with pytest.raises(LightenError, match="the plan rewrites '3', which can't be: kept by request"):
        shrink(trained, small_data, plan=plan, out=tmp_path / "net", settings=kept, recipe=NONE)


def test_a_job_is_not_resumed_for_another_budget(trained, small_data, tmp_path):
    def interrupt(stage: str, share: float, words: str) -> None:
        if stage == "export":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink(trained, small_data, "macs<=0.5x", out=tmp_path / "net", recipe=NONE, show=interrupt)
    with pytest.raises(LightenError, match=r"was begun for macs<=0\.5x, not for macs<=0\.6x: start anew with --force"):
        shrink(trained, small_data, "macs<=0.6x", out=tmp_path / "net", recipe=NONE, resume=True)
    assert shrink(trained, small_data, "macs<=0.5x", out=tmp_path / "net", recipe=NONE, resume=True).plan.choices


def test_training_data_must_tell_their_length(trained, small_data, tmp_path):
    endless = replace(small_data, train=iter(small_data.train))
    with pytest.raises(LightenError, match="must tell their number of batches"):
        shrink(trained, endless, "macs<=0.5x", out=tmp_path / "net", recipe=Recipe(epochs=1, precision="32-true"))
    few = replace(small_data, train=small_data.train.take(torch.arange(3)))
    with pytest.raises(LightenError, match="hold less than one batch"):
        shrink(trained, few, "macs<=0.5x", out=tmp_path / "new", recipe=Recipe(epochs=1, precision="32-true"))
