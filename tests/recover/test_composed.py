"""The equivalent dense kernel gives what the layers give, in every form, and its gradients reach their weights."""

import pytest
import torch
from torch import nn

from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan
from lighten.recover.composed import composed
from lighten.recover.speed import Way, fastest_way
from lighten.rewrites import REWRITES
from lighten.rewrites.base import shape_of

OPTIONS = {
    "depthwise": {"rank": 2},
    "blueprint": {"rank": 2},
    "spatial": {"rank": 5, "order": "horizontal"},
    "tucker": {"rank_in": 3, "rank_out": 5},
    "low-rank": {"rank": 4},
}
LAYERS = {
    "strided": nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "oblong": nn.Conv2d(6, 8, (3, 5), padding=(1, 2), dilation=(2, 1), bias=False),
    "reflecting": nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "same": nn.Conv2d(6, 8, 3, padding="same"),
    "sequence": nn.Conv1d(6, 8, 5, padding=2),
    "volume": nn.Conv3d(6, 8, 3, padding=1),
}


def cases():
    """Every form of every rewrite that takes the layer."""
    for kind, layer in LAYERS.items():
        shape = shape_of(layer)
        for name, options in OPTIONS.items():
            if not REWRITES[name].refuse(shape):
                for form in REWRITES[name].forms(shape, options):
                    yield pytest.param(kind, Choice("0", name, options | {"form": form}), id=f"{kind}-{name}-{form}")


def lighter_of(original: nn.Module, choice: Choice) -> nn.Module:
    """The rewritten network, with weights as PyTorch draws them."""
    return apply_plan(original, Plan(None, (), (choice,)))


@pytest.mark.parametrize(("kind", "choice"), list(cases()))
def test_same_output_and_gradients_as_the_layers(kind, choice):
    original = nn.Sequential(LAYERS[kind], nn.ReLU())
    lighter = lighter_of(original, choice).double()
    x = torch.randn(2, 6, *[9] * len(shape_of(LAYERS[kind]).window), dtype=torch.float64)

    def output_and_gradients():
        lighter.zero_grad()
        output = lighter(x)
        output.square().sum().backward()
        return [output.detach(), *(parameter.grad.clone() for parameter in lighter.parameters())]

    plain = output_and_gradients()
    with composed(lighter, original, ["0"]):
        assert "forward" in vars(lighter[0])
        through_kernel = output_and_gradients()
    assert "forward" not in vars(lighter[0])
    for one, other in zip(plain, through_kernel, strict=True):
        assert (one - other).abs().max() <= 1e-9 * one.abs().max()


def test_grouped_and_linear_layers_stay_as_they_are():
    original = nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.Flatten(), nn.Linear(8, 4))
    lighter = lighter_of(original, Choice("0", "low-rank", {"rank": 2}))
    with composed(lighter, original, ["0", "2"]):
        assert not any("forward" in vars(module) for module in lighter.modules())


def test_the_layers_come_back_after_an_error():
    original = nn.Sequential(nn.Conv2d(6, 8, 3))
    lighter = lighter_of(original, Choice("0", "low-rank", {"rank": 2}))
    with pytest.raises(RuntimeError), composed(lighter, original, ["0"]):
        lighter(torch.randn(1, 5, 9, 9))
    assert "forward" not in vars(lighter[0])


def test_the_clock_chooses_the_way(monkeypatch):
    original = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Flatten())
    lighter = lighter_of(original, Choice("0", "low-rank", {"rank": 2}))
    seconds = iter([5.0] * 3 + [4.0] * 3 + [3.0] * 3 + [9.0] * 3)
    monkeypatch.setattr("lighten.recover.speed.step_seconds", lambda *_: next(seconds))
    assert fastest_way(lighter, original, torch.randn(2, 6, 5, 5), ["0"]) == Way("32-true", True)
    seconds = iter([5.0] * 3 + [4.0] * 3)
    assert fastest_way(lighter, original, torch.randn(2, 6, 5, 5), ["0"], "bf16-mixed") == Way("bf16-mixed", False)
