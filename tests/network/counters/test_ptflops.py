"""ptflops' rules, each by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.network.counters.ptflops import ptflops
from lighten.network.record import record

X = (4, 6, 6)  # an image of 144 elements


def amounts(model: nn.Module, *shape: int) -> dict:
    return {key: amount for key, amount in ptflops(record(model, torch.randn(1, *shape))).items() if amount}


def total(model: nn.Module, *shape: int) -> int:
    return sum(amounts(model, *shape).values())


@pytest.mark.parametrize(
    ("layer", "amount"),
    [
        (nn.Conv2d(4, 8, 3, groups=2), 8 * 16 * 18 + 8 * 16),
        (nn.Conv2d(4, 8, 3, bias=False), 8 * 16 * 36),
        (nn.ConvTranspose2d(4, 8, 3, stride=2), 144 * 8 * 9 + 8 * 13 * 13),
        (nn.Linear(6, 5), 24 * 6 * 5 + 24 * 5),
        (nn.Linear(6, 5, bias=False), 24 * 6 * 5),
        (nn.BatchNorm2d(4), 2 * 144),
        (nn.BatchNorm2d(4, affine=False), 144),
        (nn.GroupNorm(2, 4), 2 * 144),
        (nn.LayerNorm(6), 144),
    ],
    ids=str,
)
def test_weights_and_norms(layer, amount):
    assert total(layer, *X) == amount


@pytest.mark.parametrize(
    ("layer", "per_element"),
    [
        *((nn.ReLU(), 2), (nn.PReLU(), 2), (nn.ELU(), 2), (nn.GELU(), 2)),
        *((nn.ReLU6(), 1), (nn.LeakyReLU(), 1), (nn.SiLU(), 1), (nn.Softmax(1), 1)),
        *((nn.Hardtanh(), 0), (nn.SELU(), 0), (nn.CELU(), 0), (nn.Hardswish(), 0), (nn.Sigmoid(), 0)),
        *((nn.MaxPool2d(2), 2), (nn.AvgPool2d(2), 2), (nn.AdaptiveAvgPool2d(1), 2), (nn.AdaptiveMaxPool2d(2), 2)),
        *((nn.Upsample(scale_factor=2), 2 * 4), (nn.UpsamplingNearest2d(scale_factor=2), 4)),
    ],
    ids=str,
)
def test_modules_count_with_the_functions_that_they_call(layer, per_element):
    assert total(layer, *X) == per_element * 144


def test_recurrent_layers():
    assert total(nn.RNN(5, 6, bias=False, batch_first=True), 7, 5) == 7 * (6 * 11 + 6)
    assert total(nn.GRU(5, 6, batch_first=True), 7, 5) == 7 * (18 * 11 + 36 + 42)
    deep = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    assert total(deep, 7, 5) == 7 * 2 * (24 * 11 + 48 + 60 + 24 * 18 + 48 + 60)
    assert total(nn.LSTMCell(5, 6), 5) == 24 * 11 + 48 + 60


class Functions(nn.Module):
    """What a container runs itself."""

    def __init__(self):
        super().__init__()
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(F.silu(x), x.expand(6, 6), x.new_zeros(6))
        y = F.adaptive_avg_pool2d(y[None, None] * 2, 1)[0, 0] + F.relu6(x)
        return self.last(torch.matmul(y, y.transpose(0, 1)))


def test_functions_count_but_linear():
    kinds = ("silu", "mean", "hardtanh", "matmul")
    assert amounts(Functions(), 6) == dict.fromkeys((("", kind) for kind in kinds), 6)


class Attention(nn.Module):
    def __init__(self, need_weights: bool):
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(8, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


def test_attention_counts_by_formula_and_its_functions_besides():
    projections = 5 * 8 * 8 * 3 + 3 * 5 * 8 + 5 * 8 * 9
    module = {("attention", "multiheadattention"): 5 * 8 + projections + 2 * (25 * 4 + 25 + 25 * 4)}
    assert amounts(Attention(need_weights=False), 5, 8) == module
    functions = {("attention", "matmul"): 2 * 2 * 25 * 4, ("attention", "_softmax"): 2 * 25}
    assert amounts(Attention(need_weights=True), 5, 8) == module | functions


def test_a_module_with_two_parents_counts_twice():
    layer, activation = nn.Linear(3, 3), nn.ReLU()
    parts = [nn.Sequential(layer, activation) for _ in range(2)]
    assert amounts(nn.Sequential(*parts), 3) == {
        ("0.0", "linear"): 2 * 2 * 12,
        ("0.1", "relu"): 2 * (2 * 3 + 3),  # as a module twice, as a function once
    }


def test_inside_a_counted_module_nothing_counts():
    timm = pytest.importorskip("timm", reason="timm isn't installed")
    attention = nn.Sequential(timm.layers.Attention(8, 2))
    assert amounts(attention, 5, 8) == {("0", "attention"): 5 * 8 + 2 * (25 * 4 + 25 + 25 * 4)}
