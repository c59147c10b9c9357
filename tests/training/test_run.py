"""What training adds to the loop that recovery tests: the moving average, and learning rates per part."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from lighten.errors import LightenError
from lighten.train import TrainRecipe, labels_loss, make_optimizer
from lighten.training.groups import parameter_groups
from lighten.training.run import Run, averaged, copy_state, finish, resumed


def start(model: nn.Module, data, recipe: TrainRecipe) -> Run:
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    loss, optimizer = labels_loss(recipe, 10), make_optimizer(model, recipe)
    run = Run(model, data, recipe, loss, optimizer, fabric, average_decay=recipe.average_decay)
    run.progress.learning_rate = recipe.learning_rate
    return run


def test_the_average_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    values, decay = [1.0, 2.0, 5.0, -3.0, 0.5], 0.15
    average = averaged(layer, decay)
    expected = None
    for count, value in enumerate(values):
        layer.weight.data.fill_(value)
        average.update_parameters(layer)
        kept = min(decay, (1 + count) / (10 + count))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    assert float(average.module.weight.detach()) == pytest.approx(expected)
    assert float(layer.weight.detach()) == 0.5


def test_the_average_follows_statistics_and_counters():
    norm = nn.BatchNorm1d(2)
    average = averaged(norm, 0.5)
    norm.running_mean.fill_(4.0)
    norm.num_batches_tracked.fill_(7)
    average.update_parameters(norm)
    norm.running_mean.fill_(8.0)
    norm.num_batches_tracked.fill_(9)
    average.update_parameters(norm)
    kept = min(0.5, 2 / 11)
    assert average.module.running_mean.tolist() == pytest.approx([kept * 4 + (1 - kept) * 8] * 2)
    assert int(average.module.num_batches_tracked) == 9


def test_the_average_is_measured_and_kept(trained, small_data):
    trained[-1].reset_parameters()
    run = start(trained, small_data, TrainRecipe(epochs=1, learning_rate=0.05, average_decay=0.9))
    finish(run, None, lambda progress: None)
    last = run.average.module.state_dict()
    assert run.progress.best_epoch == 1
    assert all(torch.equal(value, last[name]) for name, value in trained.state_dict().items())


def test_a_broken_run_resumes_its_average(trained, small_data, tmp_path):
    recipe = TrainRecipe(epochs=2, learning_rate=0.05, average_decay=0.9, checkpoint_minutes=-1.0)
    whole = copy.deepcopy(trained)
    finish(start(whole, small_data, recipe), None, lambda progress: None)

    class Stop(Exception):
        pass

    def stop(progress) -> None:
        if (progress.epoch, progress.batch) == (1, 5):
            raise Stop

    broken = copy.deepcopy(trained)
    with pytest.raises(Stop):
        finish(start(broken, small_data, recipe), tmp_path / "c.pt", stop)
    model = copy.deepcopy(trained)
    run = start(model, small_data, recipe)
    assert resumed(run, tmp_path / "c.pt") and run.progress.batch == 4
    finish(run, tmp_path / "c.pt", lambda progress: None)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_without_an_average_is_refused(trained, small_data, tmp_path):
    recipe = TrainRecipe(epochs=1, learning_rate=0.05, average_decay=0.0)
    finish(start(copy.deepcopy(trained), small_data, recipe), tmp_path / "c.pt", lambda progress: None)
    other = start(trained, small_data, TrainRecipe(epochs=1, learning_rate=0.05, average_decay=0.9))
    with pytest.raises(LightenError, match="the checkpoint belongs to another training or network"):
        resumed(other, tmp_path / "c.pt")


def test_nothing_to_resume(trained, small_data, tmp_path):
    run = start(trained, small_data, TrainRecipe(epochs=1, learning_rate=0.05))
    assert not resumed(run, None) and not resumed(run, tmp_path / "c.pt")


def network() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    return nn.ModuleDict({"body": body, "head": nn.Linear(4, 2), "body2": nn.Linear(2, 2)})


def scales(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_rates_and_decay_by_part():
    model = network()
    found = scales(model, parameter_groups(model, 0.01, {"body": 0.1, "body.1.weight": 0.5}))
    assert found == {
        "body.0.weight": (0.1, 0.01),
        "body.0.bias": (0.1, 0.0),
        "body.1.weight": (0.5, 0.0),
        "body.1.bias": (0.1, 0.0),
        "head.weight": (1.0, 0.01),
        "head.bias": (1.0, 0.0),
        "body2.weight": (1.0, 0.01),
        "body2.bias": (1.0, 0.0),
    }


def test_a_part_that_is_not_there():
    with pytest.raises(LightenError) as caught:
        parameter_groups(network(), 0.01, {"bod": 0.1})
    assert str(caught.value) == (
        "no parameter belongs to 'bod', which a learning rate was given for; parts are body, head, body2"
    )


@pytest.mark.parametrize("scale", [-1.0, float("nan")])
def test_a_scale_that_is_none(scale):
    with pytest.raises(LightenError, match="the learning rate of 'head' must be 0 or more"):
        parameter_groups(network(), 0.01, {"head": scale})


def test_a_rate_of_nothing_freezes(trained, small_data):
    before = copy_state(trained)
    recipe = TrainRecipe(epochs=1, learning_rate=0.05, average_decay=0.0, rates={"0": 0.0, "3": 0.0, "7": 0.0})
    finish(start(trained, small_data, recipe), None, lambda progress: None)
    changed = {name for name, value in trained.named_parameters() if not torch.equal(value, before[name])}
    assert changed and not changed & {"0.weight", "3.weight", "7.weight"} and "11.weight" in changed
