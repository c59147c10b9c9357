"""fvcore's rules, each by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.network.counters.fvcore import fvcore
from lighten.network.record import record

X = (4, 6, 6)  # an image of 144 elements


def total(model: nn.Module, *shape: int) -> int:
    return sum(fvcore(record(model, torch.randn(1, *shape))).values())


@pytest.mark.parametrize(
    ("layer", "amount"),
    [
        (nn.BatchNorm2d(4), 2 * 144),
        (nn.BatchNorm2d(4, affine=False), 144),
        (nn.BatchNorm2d(4, track_running_stats=False), 5 * 144),
        (nn.BatchNorm2d(4, affine=False, track_running_stats=False), 4 * 144),
        (nn.InstanceNorm2d(4), 4 * 144),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), 5 * 144),
        (nn.GroupNorm(2, 4), 5 * 144),
        (nn.GroupNorm(2, 4, affine=False), 4 * 144),
        (nn.LayerNorm(6), 5 * 144),
        (nn.LayerNorm(6, bias=False), 5 * 144),
        (nn.LayerNorm(6, elementwise_affine=False), 4 * 144),
        (nn.RMSNorm(6), 0),
    ],
    ids=str,
)
def test_norms(layer, amount):
    assert total(layer, *X) == amount


@pytest.mark.parametrize(
    ("layer", "amount"),
    [
        (nn.Conv2d(4, 8, 3), 8 * 16 * 36),
        (nn.Conv2d(4, 8, 3, padding="same"), 0),
        (nn.Conv2d(4, 8, 3, padding="same", padding_mode="reflect"), 8 * 36 * 36),
        (nn.ConvTranspose2d(4, 8, 3, stride=2), 144 * 8 * 9),
        (nn.Linear(6, 5), 144 * 5),
        (nn.AdaptiveAvgPool2d(1), 144),
        (nn.AdaptiveAvgPool2d(4), 144),
        (nn.AvgPool2d(2), 0),
        (nn.Upsample(scale_factor=2), 4 * 144),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 4 * 4 * 144),
        (nn.Upsample(scale_factor=2, mode="bicubic"), 0),
        (nn.ReLU(), 0),
    ],
    ids=str,
)
def test_layers(layer, amount):
    assert total(layer, *X) == amount


def test_adaptive_pooling_counts_in_two_dimensions_only():
    assert total(nn.AdaptiveAvgPool1d(2), 4, 6) == total(nn.AdaptiveAvgPool3d(2), 4, 6, 6, 6) == 0
    assert total(nn.AdaptiveAvgPool1d(1), 4, 6) == 0


def test_recurrent_layers_count_nothing_and_cells_as_products():
    assert total(nn.LSTM(5, 6, batch_first=True), 7, 5) == 0
    assert total(nn.GRUCell(5, 6), 5) == 3 * 6 * (5 + 6)


class Products(nn.Module):
    """What a container runs itself."""

    def __init__(self):
        super().__init__()
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(x, x, x)
        return self.last(torch.baddbmm(y, y @ y.transpose(1, 2), y))


def test_functions_count_by_their_operator():
    assert {k: v for k, v in fvcore(record(Products(), torch.randn(1, 5, 6))).items() if v} == {("", "matmul"): 150}


@pytest.mark.parametrize("on_meta", [True, False])
def test_attention_counts_its_projections_only(on_meta):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    found = record(Last(), torch.randn(1, 5, 8), on_meta=on_meta)
    assert sum(fvcore(found).values()) == 5 * 8 * 24 + 5 * 8 * 8
