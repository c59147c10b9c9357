"""thop's rules, each by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.network.counters.thop import thop
from lighten.network.record import record

X = (4, 6, 6)  # an image of 144 elements


def total(model: nn.Module, *shape: int) -> int:
    return sum(thop(record(model, torch.randn(1, *shape))).values())


@pytest.mark.parametrize(
    ("layer", "amount"),
    [
        (nn.Conv2d(4, 8, 3, groups=2), 8 * 16 * 18),
        (nn.ConvTranspose2d(4, 8, 2, stride=2), 8 * 144 * 4 * 4),
        (nn.Linear(6, 5), 144 * 5),
        (nn.BatchNorm2d(4), 4 * 144),
        (nn.BatchNorm2d(4, affine=False), 2 * 144),
        (nn.LayerNorm(6), 4 * 144),
        (nn.LayerNorm(6, elementwise_affine=False), 2 * 144),
        (nn.InstanceNorm2d(4), 2 * 144),
        (nn.GroupNorm(2, 4), 0),
        (nn.PReLU(), 144),
        (nn.ReLU(), 0),
        (nn.Softmax(1), 36 * 11),
        (nn.AvgPool2d(2), 36),
        (nn.MaxPool2d(2), 0),
        (nn.AdaptiveAvgPool2d(1), 4 * 37),
        (nn.AdaptiveAvgPool2d(4), 64 * 3 + 16),  # a window of 1.5 × 1.5, and 1
        (nn.Upsample(scale_factor=2), 576),
        (nn.UpsamplingBilinear2d(scale_factor=2), 11 * 576),
        (nn.Upsample(scale_factor=2, mode="bicubic"), 259 * 576),
    ],
    ids=str,
)
def test_layers(layer, amount):
    assert total(layer, *X) == amount


def test_recurrent_layers():
    assert total(nn.RNN(5, 6, batch_first=True), 7, 5) == 7 * (6 * 11 + 6 + 12)
    assert total(nn.GRU(5, 6, bias=False, batch_first=True), 7, 5) == 7 * (3 * (6 * 11 + 6) + 24)
    first, second = (4 * (6 * (inputs + 6) + 18) + 24 for inputs in (5, 12))
    deep = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    assert total(deep, 7, 5) == 7 * 2 * (first + second)
    assert total(nn.LSTMCell(5, 6), 5) == first


def test_subclasses_and_functions_count_nothing():
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), 1)

    assert total(Own(6, 6), 6) == 0


def test_a_module_with_two_parents_counts_four_times():
    layer = nn.Linear(3, 3)
    assert total(nn.Sequential(nn.Sequential(layer)), 3) == 9
    assert total(nn.Sequential(nn.Sequential(layer), nn.Sequential(layer)), 3) == 9 * 2 * 4


def test_amounts_have_the_names_of_layers():
    model = nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Softmax(1)))
    found = thop(record(model, torch.randn(1, 6)))
    assert {key: amount for key, amount in found.items() if amount} == {("0", "linear"): 30, ("1.0", "softmax"): 14}
