"""The one place that changes a network: a copy, every name and flag in place, and replayed bit by bit."""

import pytest
import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan, load_plan
from lighten.rewrites import REWRITES
from lighten.rewrites.base import kernel_of, shape_of

CHOICES = (
    Choice("3", "low-rank", {"rank": 16, "form": "plain"}),
    Choice("7", "depthwise", {"rank": 9, "form": "parallel"}),
)
PLAN = Plan(None, (1, 8, 8), CHOICES)


class Nested(nn.Module):
    """A convolution as an attribute and one inside a Sequential inside a ModuleList."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](self.stem(x))


def exact_factors(model: nn.Module, choice: Choice) -> tuple[Tensor, ...]:
    """Of a choice at full rank, in the plain Frobenius norm."""
    w_BOIK = kernel_of(model.get_submodule(choice.site))
    groups, outputs = w_BOIK.shape[:2]
    eye = torch.eye(w_BOIK[0, 0].numel())[None], torch.eye(outputs).repeat(groups, 1, 1)
    return REWRITES[choice.rewrite].start(
        w_BOIK, shape_of(model.get_submodule(choice.site)), choice.options, eye[0], eye[1]
    )


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_full_rank_factors_compute_the_same_and_the_original_is_untouched(trained, trained_once):
    factors = {choice.site: exact_factors(trained, choice) for choice in CHOICES}
    lighter = apply_plan(trained, PLAN, factors)
    x = torch.randn(5, 1, 8, 8)
    scale = trained(x).abs().max()
    assert (lighter(x) - trained(x)).abs().max() < 1e-2 * scale
    assert (apply_plan(trained, PLAN)(x) - trained(x)).abs().max() > 1e-2 * scale
    assert type(trained[3]) is nn.Conv2d and equal_states(trained, trained_once)
    assert not {p.data_ptr() for p in lighter.parameters()} & {p.data_ptr() for p in trained.parameters()}


def test_layers_that_are_not_named_stay(trained):
    lighter = apply_plan(trained, PLAN)
    assert [type(m) for m in lighter[:3]] == [type(m) for m in trained[:3]] and type(lighter[3]) is not nn.Conv2d
    for index in (0, 1, 4, 8, 11):
        assert equal_states(lighter[index], trained[index])
    assert len(lighter) == len(trained)


@pytest.mark.parametrize("mode", [True, False])
def test_training_flags_are_kept(trained, mode: bool):
    trained.train(mode)
    trained[7].train(not mode)
    lighter = apply_plan(trained, PLAN)
    assert {m.training for m in lighter[3].modules()} == {mode}
    assert {m.training for m in lighter[7].modules()} == {not mode}
    assert trained.training == mode and trained[7].training != mode


def test_children_of_containers_are_replaced():
    model = Nested()
    choices = (Choice("stem", "low-rank", {"rank": 2}), Choice("blocks.0.0", "low-rank", {"rank": 3}))
    lighter = apply_plan(model, Plan(None, (4, 9, 9), choices))
    assert lighter.stem[0].out_channels == 2 and lighter.blocks[0][0][0].out_channels == 3
    assert lighter(torch.randn(2, 4, 9, 9)).shape == (2, 8, 5, 5)
    assert isinstance(model.blocks[0][0], nn.Conv2d)


def test_a_replay_from_plan_and_weights_is_bit_equal(trained, tmp_path):
    lighter = apply_plan(trained, PLAN, {choice.site: exact_factors(trained, choice) for choice in CHOICES})
    PLAN.save(tmp_path / "plan.json")
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    again = apply_plan(trained, load_plan(tmp_path / "plan.json"))
    again.load_state_dict(lighter.state_dict())
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(again(x), lighter(x)) and equal_states(again, lighter)


def test_a_plan_that_does_not_fit_changes_nothing(trained, trained_once):
    plan = Plan(None, (1, 8, 8), (*CHOICES, Choice("1", "low-rank", {"rank": 1})))
    with pytest.raises(LightenError, match=r"choices\[2\] \('1'\): a BatchNorm2d can't be rewritten"):
        apply_plan(trained, plan)
    assert equal_states(trained, trained_once) and type(trained[3]) is nn.Conv2d
