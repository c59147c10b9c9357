"""Amounts are by name and kind; what tools don't see is left out."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.network.counters.amounts import is_adaptive_average, met, of_modules, of_operators
from lighten.network.record import record


class Block(nn.Module):
    """A layer called twice, and functions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x)) @ torch.relu(x).transpose(1, 2)


def test_modules_count_at_every_call():
    found = of_modules(record(nn.Sequential(Block()), torch.randn(1, 3, 4)), lambda call: call.depth)
    assert found == {("", "sequential"): 0, ("0", "block"): 1, ("0.layer", "linear"): 2 + 2}


def test_operators_of_containers_are_named_by_what_they_do():
    found = of_operators(record(nn.Sequential(Block()), torch.randn(1, 3, 4)), lambda call: call.macs or 0)
    assert +found == {("0.layer", "linear"): 2 * 48, ("0", "matmul"): 36}
    assert ("0", "relu") in found


def test_operators_inside_recurrent_layers_are_left_out():
    found = record(nn.GRU(3, 4, batch_first=True), torch.randn(1, 5, 3), on_meta=False)
    assert any(call.macs for call in found.operators)
    assert of_operators(found, lambda call: call.macs or 0) == {}


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*nn.functional.linear(x, x.new_ones(18, 6)).chunk(3, -1))
        return y @ y.transpose(-1, -2)


def test_products_inside_attention_are_left_out():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = record(Attention(), torch.randn(1, 2, 5, 6))
    assert [call.operator for call in found.operators if call.macs] == ["mm", "bmm", "bmm", "bmm"]
    amounts = of_operators(found, lambda call: call.macs or 0)
    assert sum(amounts.values()) == 2 * 5 * 6 * 18 + 2 * 25 * 6


def test_modules_below_several_parents_are_met_as_often():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(layer, layer), nn.Sequential(layer))
    assert Counter(met(model, lambda module: False))[layer] == 2
    assert list(met(model, lambda module: module is model)) == [model]


class Pool(nn.Module):
    def __init__(self, size: int | None):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.size) if self.size else x.mean((2, 3))


@pytest.mark.parametrize(("size", "is_pooling"), [(1, 1), (2, 1), (None, 0)])
def test_adaptive_pooling_is_told_from_a_mean(size, is_pooling):
    found = record(Pool(size), torch.randn(1, 3, 6, 6))
    assert sum(map(is_adaptive_average, found.operators)) == is_pooling


def test_a_mean_over_channels_is_no_pooling():
    class Channels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True)

    found = record(Channels(), torch.randn(1, 3, 1, 1))
    assert not any(map(is_adaptive_average, found.operators))
