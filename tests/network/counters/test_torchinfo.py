"""torchinfo's rules, each by hand."""

import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from lighten.network.counters.torchinfo import torchinfo
from lighten.network.record import record


def amounts(model: nn.Module, *shape: int) -> dict:
    return {key: amount for key, amount in torchinfo(record(model, torch.randn(1, *shape))).items() if amount}


def test_convolutions_count_weight_and_bias_at_each_place():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))
    assert amounts(model, 4, 6, 6) == {("0", "conv2d"): (8 * 2 * 9 + 8) * 16, ("2", "conv2d"): 16 * 16}


def test_transposed_convolutions_count_the_places_of_their_output():
    assert amounts(nn.ConvTranspose1d(3, 4, 2, stride=2), 3, 5) == {("", "convtranspose1d"): (3 * 4 * 2 + 4) * 10}


def test_linear_layers_count_one_step_of_a_sequence():
    assert amounts(nn.Linear(6, 4), 7, 6) == {("", "linear"): 6 * 4 + 4}


def test_norms_count_their_parameters():
    model = nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False))
    assert amounts(model, 5, 3, 3) == {("0", "batchnorm2d"): 10}


def test_recurrent_layers_count_all_weights_at_each_step():
    weights = 2 * 4 * 6 * (5 + 6 + 2)
    assert amounts(nn.LSTM(5, 6, bidirectional=True, batch_first=True), 7, 5) == {("", "lstm"): weights * 7}


def test_every_call_counts():
    layer = nn.Linear(3, 3)
    assert amounts(nn.Sequential(layer, layer), 3) == {("0", "linear"): 24}


def test_masked_weights_count_where_they_are_kept():
    layer = nn.Linear(6, 4)
    prune.custom_from_mask(layer, "weight", torch.arange(24).reshape(4, 6) < 5)
    assert amounts(layer, 6) == {("", "linear"): 5 + 4}


def test_layers_with_parts_count_nothing():
    assert amounts(weight_norm(nn.Linear(6, 4)), 6) == {}
    layer = nn.Linear(6, 4)
    layer.parts = nn.Sequential()  # an empty part is none
    assert amounts(layer, 6) == {("", "linear"): 28}


def test_what_gives_no_tensor_counts_nothing():
    class Size(nn.Linear):
        def forward(self, x: torch.Tensor) -> int:
            return len(x)

    assert amounts(nn.Sequential(nn.Linear(6, 4), Size(4, 4)), 6) == {("0", "linear"): 28}
