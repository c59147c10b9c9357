"""Published and hand-worked figures of single layers: the formulas give exactly these."""

import pytest
import torch
from torch import nn

from lighten.network.cost import Cost, count_macs
from lighten.network.trace import trace


def cost_of(layer: nn.Module, *shape: int) -> tuple[int, int]:
    """(parameters, MACs) of one sample."""
    cost = trace(layer, torch.randn(2, *shape)).cost
    return cost.params, cost.macs


def test_costs_add():
    assert Cost(*range(1, 10)) + Cost(*range(10, 100, 10)) == Cost(*range(11, 100, 11))


@pytest.mark.parametrize(
    ("layer", "shape", "params", "macs"),
    [
        (nn.Conv2d(3, 32, 3, padding=1, bias=False), (3, 16, 16), 864, 221_184),
        (nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), (3, 16, 16), 27, 6_912),
        (nn.Conv2d(3, 32, 1, bias=False), (3, 16, 16), 96, 24_576),
        (nn.Linear(432, 64, bias=False), (432,), 27_648, 27_648),
        (nn.Conv2d(3, 1, 5, bias=False), (3, 12, 12), 75, 4_800),
        (nn.Conv2d(3, 8, 5, bias=False), (3, 12, 12), 600, 4_800 * 8),
        (nn.Conv2d(3, 1, (5, 1), bias=False), (3, 12, 12), 15, 1_440),
        (nn.Conv2d(1, 1, (1, 5), bias=False), (1, 8, 12), 5, 320),
        # the CRNN's first two dense layers
        (nn.Conv2d(1, 64, 3, padding=1), (1, 32, 320), 640, 9 * 64 * 32 * 320),
        (nn.Conv2d(64, 128, 3, padding=1), (64, 16, 160), 73_856, 9 * 64 * 128 * 16 * 160),
    ],
)
def test_figures_of_the_textbook(layer, shape, params, macs):
    assert cost_of(layer, *shape) == (params, macs)


@pytest.mark.parametrize("num_maps", [1, 2, 64])
def test_separable_layers_of_the_textbook(num_maps):
    separable = nn.Sequential(nn.Conv2d(3, 3, 5, groups=3, bias=False), nn.Conv2d(3, num_maps, 1, bias=False))
    assert cost_of(separable, 3, 12, 12) == (75 + 3 * num_maps, 4_800 + 192 * num_maps)
    spatial = nn.Sequential(nn.Conv2d(3, 1, (5, 1), bias=False), nn.Conv2d(1, 1, (1, 5), bias=False))
    assert cost_of(spatial, 3, 12, 12) == (20, 1_760)


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(8, 12, 3, groups=4), (8, 9, 9), 7 * 7 * 12 * 9 * 2),
        (nn.Conv2d(8, 12, 3, stride=2, padding=1), (8, 9, 9), 5 * 5 * 12 * 9 * 8),
        (nn.Conv2d(8, 12, 3, dilation=3), (8, 9, 9), 3 * 3 * 12 * 9 * 8),
        (nn.Conv2d(8, 12, (3, 1), padding="same"), (8, 9, 7), 9 * 7 * 12 * 3 * 8),
        (nn.Conv1d(8, 12, 5), (8, 20), 16 * 12 * 5 * 8),
        (nn.Conv3d(2, 4, 3), (2, 5, 6, 7), 3 * 4 * 5 * 4 * 27 * 2),
        (nn.ConvTranspose2d(8, 12, 4, 2, 1), (8, 5, 5), 5 * 5 * 8 * 16 * 12),
        (nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4), (8, 5, 5), 5 * 5 * 8 * 16 * 3),
        (nn.ConvTranspose1d(8, 12, 3), (8, 5), 5 * 8 * 3 * 12),
        (nn.ConvTranspose3d(2, 3, 2), (2, 3, 4, 5), 3 * 4 * 5 * 2 * 8 * 3),
        (nn.Linear(6, 7), (6,), 42),
        (nn.Linear(6, 7), (5, 6), 5 * 42),
    ],
)
def test_macs_by_hand(layer, shape, macs):
    assert cost_of(layer, *shape) == (sum(p.numel() for p in layer.parameters()), macs)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers(kind, gates, directions, batch_first):
    layer = kind(10, 6, num_layers=2, bidirectional=directions == 2, batch_first=batch_first)
    shape = (1, 7, 10) if batch_first else (7, 1, 10)
    per_step = directions * gates * (6 * (10 + 6) + 6 * (6 * directions + 6))
    result = layer(torch.randn(shape))[0]
    without_batch = (7, 10), (7, 6 * directions)
    assert result.numel() == 7 * 6 * directions
    assert count_macs(layer, *without_batch) == 7 * per_step


def test_norms_and_activations_are_free_and_unknown_weights_are_not_guessed():
    for layer in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4), nn.PReLU(), nn.ReLU()):
        assert count_macs(layer, (4, 5, 5), (4, 5, 5)) == 0
    assert count_macs(nn.RMSNorm(5), (4, 5), (4, 5)) == count_macs(nn.LayerNorm(5), (4, 5), (4, 5)) == 0
    assert count_macs(nn.Bilinear(3, 4, 5), (3,), (5,)) is None


def test_bytes():
    cost = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(4, 3, 10, 10)).cost
    assert cost.activation_bytes == 2 * 8 * 8 * 8 * 4 and cost.weight_bytes == 4 * cost.params == 4 * 224
    cost = trace(nn.Linear(3, 8, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)).cost
    assert (cost.activation_bytes, cost.weight_bytes) == (64, 8 * 32)
