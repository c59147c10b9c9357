"""Repair without gradients: it mends a crude plan, keeps only what helps, and touches nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lighten.measure.accuracy import divergence, teacher_logits
from lighten.measure.moments import Moments, collect
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan
from lighten.recover.repair import repair
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Factors, kernel_of, shape_of

CHOICES = (
    Choice("3", "low-rank", {"rank": 3, "form": "plain"}),
    Choice("7", "depthwise", {"rank": 1, "form": "plain"}),
)


class Case:
    """A trained network, a crude low-rank copy fitted without any data, and what repair needs."""

    def __init__(self, model: nn.Module, data):
        self.model, self.held_out = model, list(data.held_out)
        self.factors = {choice.site: crude(model, choice) for choice in CHOICES}
        self.lighter = apply_plan(model, Plan(None, (1, 8, 8), CHOICES), self.factors).eval()
        self.moments: dict[str, Moments] = collect(model, [choice.site for choice in CHOICES], data.calibration)
        self.batches = [inputs for inputs, _ in data.calibration]
        self.logits = teacher_logits(model, self.held_out)

    def loss(self, network: nn.Module) -> float:
        return divergence(network, self.held_out, self.logits)

    def repair(self, loss: Callable[[nn.Module], float] | None = None, **options):
        return repair(
            self.model,
            self.lighter,
            CHOICES,
            self.factors,
            self.moments,
            self.batches,
            loss or self.loss,
            **options,
        )


def crude(model: nn.Module, choice: Choice) -> Factors:
    """Factors in the plain Frobenius norm."""
    layer = model.get_submodule(choice.site)
    w_BOIK = kernel_of(layer)
    c_BPP, g_BOO = torch.eye(w_BOIK[0, 0].numel())[None], torch.eye(w_BOIK.shape[1])[None]
    return REWRITES[choice.rewrite].start(w_BOIK, shape_of(layer), choice.options, c_BPP, g_BOO)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def case(trained, small_data) -> Case:
    return Case(trained, small_data)


def test_a_crude_plan_is_mended(case: Case):
    before = case.loss(case.lighter)
    mended = case.repair()
    assert mended.before == pytest.approx(before) and before > 0.05
    assert mended.after == pytest.approx(case.loss(case.lighter))
    assert mended.after < 0.5 * mended.before
    assert mended.kept == ("3", "7")


def test_only_the_chosen_sites_change(case: Case):
    lighter, original = state_of(case.lighter), state_of(case.model)
    case.repair()
    changed = {n.split(".")[0] for n, v in case.lighter.state_dict().items() if not torch.equal(v, lighter[n])}
    assert changed == {"3", "7"}
    assert all(torch.equal(value, original[name]) for name, value in case.model.state_dict().items())
    assert not any(module.training for module in case.lighter.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*case.lighter.modules(), *case.model.modules()))


def test_biases_of_the_original_stay(case: Case):
    case.repair()
    assert torch.equal(case.lighter[3][1].bias, case.model[3].bias)


@pytest.mark.parametrize("losses", [lambda call: 1.0 + call, lambda call: 1.0, lambda call: float("nan")])
def test_a_fit_that_does_not_help_is_undone(case: Case, losses: Callable[[int], float]):
    before, factors = state_of(case.lighter), dict(case.factors)
    calls = []

    def loss(network: nn.Module) -> float:
        calls.append(state_of(network))
        return losses(len(calls))

    mended = case.repair(loss)
    assert mended.kept == () and len(calls) == 1 + len(CHOICES)
    assert any(not torch.equal(calls[1][name], before[name]) for name in before), "no fit was tried"
    assert all(torch.equal(value, before[name]) for name, value in case.lighter.state_dict().items())
    assert all(case.factors[site] is factors[site] for site in factors)


def test_one_fit_may_stay_where_the_next_goes(case: Case):
    before, losses = state_of(case.lighter), iter([3.0, 2.0, 2.5])
    mended = case.repair(lambda network: next(losses))
    assert (mended.before, mended.after, mended.kept) == (3.0, 2.0, ("3",))
    changed = {n.split(".")[0] for n, v in case.lighter.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"3"}


def test_the_factors_are_those_of_the_layers(case: Case):
    case.repair()
    v, u = case.factors["3"]
    assert torch.equal(case.lighter[3][0].weight.flatten(), v.flatten())
    assert torch.equal(case.lighter[3][1].weight.flatten(), u.flatten())


def test_progress_is_told(case: Case):
    told = []
    case.repair(on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_an_exact_network_needs_no_repair(trained, small_data):
    choice = Choice("3", "low-rank", {"rank": 16, "form": "plain"})
    factors = {"3": crude(trained, choice)}
    lighter = apply_plan(trained, Plan(None, (1, 8, 8), (choice,)), factors).eval()
    held_out = list(small_data.held_out)
    logits = teacher_logits(trained, held_out)
    moments = collect(trained, ["3"], small_data.calibration)
    batches = [inputs for inputs, _ in small_data.calibration]
    mended = repair(trained, lighter, [choice], factors, moments, batches, lambda n: divergence(n, held_out, logits))
    assert mended.before < 1e-6 and mended.after <= mended.before
