"""Distillation: it learns, stops when told, goes on where it broke off, and says where it fails."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.data.batches import Data, crop_and_flip
from lighten.errors import LightenError
from lighten.measure.accuracy import Accuracy
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan
from lighten.recover import distil as module
from lighten.recover.distil import Recipe, distil, distillation_loss, recovery
from lighten.recover.speed import Way
from lighten.training import run as loop
from lighten.training.checkpoint import load_checkpoint
from lighten.training.run import Progress

CHOICES = (Choice("3", "low-rank", {"rank": 4}), Choice("7", "depthwise", {"rank": 1}))
SITES = tuple(choice.site for choice in CHOICES)
RECIPE = Recipe(epochs=2, learning_rate=0.05, precision="32-true", checkpoint_minutes=-1.0)


class Stop(Exception):
    """Breaks a run off."""


@pytest.fixture
def lighter(trained) -> nn.Module:
    """Two sites with random factors: much to learn."""
    return apply_plan(trained, Plan(None, (1, 8, 8), CHOICES))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def relabelled(data: Data, label: int) -> Data:
    return replace(data, train=replace(data.train, labels=torch.full_like(data.train.labels, label)))


def test_loss_falls_and_accuracy_rises(lighter, trained, small_data):
    progress = distil(lighter, trained, small_data, replace(RECIPE, epochs=3))
    losses = [record["loss"] for record in progress.history]
    assert len(losses) == 3 and losses[2] < 0.5 * losses[0]
    assert progress.best_accuracy > 80 and progress.best_accuracy == loop.evaluate(lighter, small_data.held_out).value
    assert set(progress.history[0]) == {"epoch", "seconds", "loss", "held_out_accuracy", "learning_rate"}
    assert [record["epoch"] for record in progress.history] == [1, 2, 3]


def test_muon_learns_too(lighter, trained, small_data):
    recipe = replace(RECIPE, epochs=3, optimizer="muon", learning_rate=0.01)
    progress = distil(lighter, trained, small_data, recipe)
    assert progress.history[2]["loss"] < 0.5 * progress.history[0]["loss"] and progress.best_accuracy > 80


def test_an_unknown_optimizer(lighter, trained, small_data):
    with pytest.raises(LightenError, match=r"^recovery knows no optimizer 'adam': known are sgd, muon$"):
        distil(lighter, trained, small_data, replace(RECIPE, optimizer="adam"))


def test_the_same_parameters_learn_through_dense_kernels(lighter, trained, small_data, monkeypatch):
    monkeypatch.setattr(module, "fastest_way", lambda *args: Way("32-true", True))
    before = state_of(lighter)
    progress = distil(lighter, trained, small_data, replace(RECIPE, epochs=3), SITES)
    assert progress.best_accuracy > 80 and list(lighter.state_dict()) == list(before)
    assert not torch.equal(lighter[3][0].weight, before["3.0.weight"])
    assert not any("forward" in vars(part) for part in lighter.modules())


def test_the_original_stays_as_it_was(lighter, trained, trained_once, small_data):
    trained.train()
    trained[7].requires_grad_(False)
    distil(lighter, trained, small_data, replace(RECIPE, epochs=1))
    assert equal(state_of(trained), state_of(trained_once))
    assert trained.training and trained[3].training
    assert trained[3].weight.requires_grad and not trained[7].weight.requires_grad
    assert trained[3].weight.is_contiguous()


def test_epochs_end_a_run(lighter, trained, small_data):
    steps = []
    progress = distil(lighter, trained, small_data, RECIPE, on_progress=lambda p: steps.append((p.epoch, p.batch)))
    assert steps == [(e, b) for e in (0, 1) for b in range(1, 13)][:12] + [(1, 0)] + [(1, b) for b in range(1, 13)] + [
        (2, 0)
    ]
    assert progress.epoch == 2 and progress.num_batches == 12


def test_minutes_end_a_run_in_the_middle_of_an_epoch(lighter, trained, small_data, monkeypatch):
    class Clock:
        now = 0.0

        @staticmethod
        def monotonic() -> float:
            return Clock.now

    def second_passes(progress: Progress) -> None:
        Clock.now += 1.0

    monkeypatch.setattr(loop, "time", Clock)
    recipe = replace(RECIPE, epochs=50, minutes=15 / 60)
    progress = distil(lighter, trained, small_data, recipe, on_progress=second_passes)
    assert 1 <= len(progress.history) <= 2
    assert progress.history[-1]["learning_rate"] < 0.05 * recipe.learning_rate
    assert 15 <= Clock.now <= 18


def test_the_learning_rate_warms_up_and_falls_to_zero(lighter, trained, small_data):
    recipe = replace(RECIPE, epochs=4, warmup=0.25, learning_rate=0.02)
    run = recovery(lighter, trained, small_data, recipe, "32-true")
    run.progress.learning_rate = recipe.learning_rate
    rates = []
    while not run.is_over():
        for batch in run.epoch_batches():
            run.step(*batch)
            rates.append(run.optimizer.param_groups[0]["lr"])
        run.finish_epoch()
    top = rates.index(max(rates))
    assert len(rates) == 48 and 11 <= top <= 12
    assert rates[0] < 0.02 * recipe.learning_rate and rates[-1] < 0.002 * recipe.learning_rate
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[24] == pytest.approx(0.5 * recipe.learning_rate)
    assert rates[36] == pytest.approx(0.5 * recipe.learning_rate * (1 + math.cos(0.75 * math.pi)))


@pytest.mark.parametrize("stop_at", [(0, 1), (0, 7), (1, 0), (1, 1), (1, 9), (2, 0)])
def test_a_broken_run_that_goes_on_ends_as_an_unbroken_one(trained, small_data, tmp_path, stop_at):
    data = replace(small_data, train=replace(small_data.train, augment=crop_and_flip(1)))
    plan, unbroken = Plan(None, (1, 8, 8), CHOICES), None
    start = apply_plan(trained, plan)
    expected = apply_plan(trained, plan)
    expected.load_state_dict(start.state_dict())
    unbroken = distil(expected, trained, data, RECIPE)

    def stop(progress: Progress) -> None:
        if (progress.epoch, progress.batch) == stop_at:
            raise Stop

    broken = apply_plan(trained, plan)
    broken.load_state_dict(start.state_dict())
    with pytest.raises(Stop):
        distil(broken, trained, data, RECIPE, (), tmp_path / "c.pt", on_progress=stop)
    torch.manual_seed(99)
    resumed = apply_plan(trained, plan)
    resumed.load_state_dict(start.state_dict())
    progress = distil(resumed, trained, data, RECIPE, (), tmp_path / "c.pt", resume=True)
    assert equal(state_of(resumed), state_of(expected)) and not equal(state_of(resumed), state_of(start))
    accuracies = [[record["held_out_accuracy"] for record in p.history] for p in (progress, unbroken)]
    assert accuracies[0] == accuracies[1]


def test_a_finished_run_is_not_run_again(lighter, trained, small_data, tmp_path):
    first = distil(lighter, trained, small_data, replace(RECIPE, epochs=1), (), tmp_path / "c.pt")
    after, steps = state_of(lighter), []
    again = distil(lighter, trained, small_data, replace(RECIPE, epochs=1), (), tmp_path / "c.pt", True, steps.append)
    assert steps == [] and again.history == first.history and equal(state_of(lighter), after)


def test_without_resume_a_checkpoint_is_written_over(lighter, trained, small_data, tmp_path):
    (tmp_path / "c.pt").write_bytes(b"old")
    distil(lighter, trained, small_data, replace(RECIPE, epochs=1), (), tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt").progress["epoch"] == 1


def test_a_checkpoint_of_another_plan_is_refused(lighter, trained, small_data, tmp_path):
    distil(lighter, trained, small_data, replace(RECIPE, epochs=1), (), tmp_path / "c.pt")
    other = apply_plan(trained, Plan(None, (1, 8, 8), (Choice("3", "low-rank", {"rank": 5}),)))
    with pytest.raises(LightenError) as caught:
        distil(other, trained, small_data, RECIPE, (), tmp_path / "c.pt", resume=True)
    assert str(caught.value) == "cannot resume: the checkpoint belongs to another recovery or network"


def test_a_damaged_checkpoint_is_refused(lighter, trained, small_data, tmp_path):
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(LightenError, match="cannot resume from '.*c.pt': it is missing or damaged"):
        distil(lighter, trained, small_data, RECIPE, (), tmp_path / "c.pt", resume=True)


def test_a_nan_in_the_training_data_stops_and_keeps_the_checkpoint(lighter, trained, small_data, tmp_path):
    batches = list(small_data.train)[:5]
    batches[3][0][0, 0, 0, 0] = math.nan
    with pytest.raises(LightenError) as caught:
        distil(lighter, trained, replace(small_data, train=batches), RECIPE, (), tmp_path / "c.pt")
    assert str(caught.value) == (
        "recovery: the loss is no longer finite in epoch 1, first seen in the layer '0'; "
        "the last checkpoint is kept, try a lower learning rate"
    )
    kept = load_checkpoint(tmp_path / "c.pt")
    assert kept.progress["batch"] == 3 and all(value.isfinite().all() for value in kept.model.values())


@pytest.mark.parametrize(("composed", "layer"), [(False, "7.1"), (True, "7")])
def test_the_layer_that_breaks_is_named(lighter, trained, small_data, monkeypatch, composed: bool, layer: str):
    monkeypatch.setattr(module, "fastest_way", lambda *args: Way("32-true", composed))

    def spoil(progress: Progress) -> None:
        if progress.batch == 2:
            lighter[7][1].weight.data[3] = math.inf

    with pytest.raises(LightenError, match=f"first seen in the layer '{layer}'"):
        distil(lighter, trained, small_data, RECIPE, SITES, on_progress=spoil)
    assert not any("forward" in vars(part) for part in lighter.modules())


class Root(nn.Module):
    """Adds √(0 · w) = 0, whose gradient is not a number."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (0 * self.weight).sqrt()


def test_a_gradient_that_is_not_finite_stops_before_the_step(trained, small_data):
    lighter = nn.Sequential(*trained, Root())
    before = {name: value.clone() for name, value in lighter.named_parameters()}
    with pytest.raises(LightenError) as caught:
        distil(lighter, trained, small_data, RECIPE)
    assert str(caught.value) == (
        "recovery: the gradient of '12.weight' is no longer finite in epoch 1; "
        "the last checkpoint is kept, try a lower learning rate"
    )
    assert all(torch.equal(value, before[name]) for name, value in lighter.named_parameters())


def test_no_labels_are_needed(lighter, trained, small_data):
    unlabelled = relabelled(small_data, -1)
    progress = distil(lighter, trained, unlabelled, replace(RECIPE, epochs=3))
    assert progress.best_accuracy > 80


def test_labels_count_where_the_data_have_them(lighter, trained, small_data):
    plan = Plan(None, (1, 8, 8), CHOICES)
    states = []
    for label, weight in ((-1, 0.5), (3, 0.5), (3, 0.0)):
        network = apply_plan(trained, plan)
        network.load_state_dict(lighter.state_dict())
        recipe = replace(RECIPE, epochs=1, label_weight=weight)
        run = recovery(network, trained, relabelled(small_data, label), recipe, "32-true")
        run.progress.learning_rate = recipe.learning_rate
        for batch in list(run.epoch_batches())[:3]:
            run.step(*batch)
        states.append(state_of(network))
    assert equal(states[0], states[2]) and not equal(states[0], states[1])


def test_the_loss_by_hand():
    recipe = Recipe(temperature=2.0, label_weight=0.25)
    logits, wanted = torch.randn(4, 3), torch.randn(4, 3)
    labels = torch.tensor([2, -1, 0, -1])
    p, q = (wanted / 2).softmax(1), (logits / 2).softmax(1)
    soft = 4 * (p * (p / q).log()).sum(1).mean()
    hard = -(F.log_softmax(logits, 1)[0, 2] + F.log_softmax(logits, 1)[2, 0]) / 2
    found = distillation_loss(logits, wanted, labels, recipe)
    torch.testing.assert_close(found, 0.75 * soft + 0.25 * hard)
    torch.testing.assert_close(distillation_loss(logits, wanted, torch.full((4,), -1), recipe), soft)
    torch.testing.assert_close(distillation_loss(logits, wanted, labels, replace(recipe, label_weight=0.0)), soft)
    assert distillation_loss(wanted, wanted, torch.full((4,), -1), recipe).abs() < 1e-6


def test_the_loss_of_a_recogniser_is_the_mean_over_its_steps():
    logits, wanted, labels = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.ones(2, 4, dtype=torch.long)
    found = distillation_loss(logits, wanted, labels, Recipe())
    steps = [
        distillation_loss(logits[:, t], wanted[:, t], torch.full((2,), -1), Recipe(label_weight=0.0)) for t in range(5)
    ]
    torch.testing.assert_close(found, sum(steps) / 5)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ((10, 50, 90, 20), 2),
        ((10, 50, 90, 90), 3),
        ((95, 50, 90, 20), 0),
        ((95, 94.5, 90, 20), 1),  # less than a point under the start, which looks too good there
        ((95, 94.5, 94.2, 20), 1),  # among epochs every point counts
    ],
)
def test_the_best_epoch_on_held_out_data_is_what_remains(lighter, trained, small_data, monkeypatch, accuracies, best):
    given = iter(accuracies)
    monkeypatch.setattr(loop, "evaluate", lambda network, loader: Accuracy("top1", float(next(given)), 300))
    states = [state_of(lighter)]

    def keep(progress: Progress) -> None:
        if progress.batch == 0:
            states.append(state_of(lighter))

    progress = distil(lighter, trained, small_data, replace(RECIPE, epochs=3), on_progress=keep)
    assert [equal(state_of(lighter), state) for state in states] == [epoch == best for epoch in range(4)]
    assert (progress.best_epoch, progress.best_accuracy) == (best, accuracies[best])
