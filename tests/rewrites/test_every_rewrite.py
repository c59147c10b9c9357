"""What holds for every rewrite: exact at full rank, all forms alike, the same structure without factors."""

import copy
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lighten.rewrites import REWRITES
from lighten.rewrites.base import (
    Layer,
    Options,
    Shape,
    convolution,
    fill,
    is_rewritable,
    kernel_of,
    rank_grid,
    shape_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    """Small convolutions of all kinds."""
    num_axes = draw(st.sampled_from([2, 2, 2, 1, 3]))

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(num_axes))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    padding = draw(st.sampled_from(["same", "valid", None]))
    return CONVOLUTION[num_axes](
        groups * draw(st.integers(1, 6)),
        groups * draw(st.integers(1, 7)),
        per_axis(1, 3),
        1 if padding == "same" else per_axis(1, 2),
        per_axis(0, 2) if padding is None else padding,
        per_axis(1, 2),
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
    )


@st.composite
def linears(draw: st.DrawFn) -> Layer:
    """Small linear layers."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return nn.Linear(draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.booleans()), dtype=dtype)


LAYERS = st.one_of(convolutions(), convolutions(), convolutions(), linears())


def input_for(layer: Layer) -> Tensor:
    """Two samples, small and not square."""
    if isinstance(layer, nn.Linear):
        return torch.randn(2, 3, layer.in_features, dtype=layer.weight.dtype)
    sizes = [7, 6, 5][: len(layer.kernel_size)]
    return torch.randn(2, layer.in_channels, *sizes, dtype=layer.weight.dtype)


def full_rank(name: str, shape: Shape) -> list[Options]:
    """The ranks at which the rewrite's docstring says that it is exact."""
    outputs, inputs, taps = shape.num_outputs, shape.num_inputs, shape.num_taps
    match name:
        case "depthwise":
            return [{"rank": min(outputs, taps)}]
        case "blueprint":
            return [{"rank": min(inputs, taps)}]
        case "spatial":
            height, width = shape.window
            return [
                {"rank": min(inputs * height, outputs * width), "order": "vertical"},
                {"rank": min(inputs * width, outputs * height), "order": "horizontal"},
            ]
        case "tucker":
            return [{"rank_in": inputs, "rank_out": outputs}]
        case "low-rank":
            return [{"rank": min(outputs, inputs * taps)}]
    raise AssertionError(f"say here at which rank '{name}' is exact")


def test_the_comparer_sees_a_factor_of_two_and_another_dtype(close):
    x = torch.randn(3, 4)
    assert close(x * (1 + 1e-6), x)
    assert not close(2 * x, x) and not close(x, 2 * x) and not close(x.double(), x) and not close(x[:1], x)


@pytest.mark.parametrize("name", REWRITES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(layer=LAYERS)
def test_exact_at_full_rank(name, close, fit, layer):
    rewrite, shape, x = REWRITES[name], shape_of(layer), input_for(layer)
    assume(rewrite.refuse(shape) is None)
    for options in full_rank(name, shape):
        assert rewrite.check(shape, options) is None
        factors = fit(name, layer, options)
        for form in rewrite.forms(shape, options):
            assert close(rewrite.build(layer, options | {"form": form}, factors)(x), layer(x)), (layer, options, form)


@pytest.mark.parametrize("name", REWRITES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(layer=LAYERS, data=st.data())
def test_every_form_computes_the_equivalent_kernel(name, close, fit, layer, data):
    rewrite, shape, x = REWRITES[name], shape_of(layer), input_for(layer)
    assume(rewrite.refuse(shape) is None)
    options = data.draw(st.sampled_from(rewrite.grid(shape)))
    factors, dense = fit(name, layer, options), copy.deepcopy(layer)
    fill(dense, rewrite.kernel(factors, shape, options))
    for form in rewrite.forms(shape, options):
        built = rewrite.build(layer, options | {"form": form}, factors)
        assert close(built(x), dense(x), 1e-4), (layer, options, form)
        assert {p.dtype for p in built.parameters()} == {layer.weight.dtype}


@pytest.mark.parametrize("name", REWRITES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])
@given(layer=LAYERS, data=st.data())
def test_the_structure_alone_has_the_same_state(name, fit, layer, data):
    rewrite, shape = REWRITES[name], shape_of(layer)
    assume(rewrite.refuse(shape) is None)
    options = data.draw(st.sampled_from(rewrite.grid(shape)))
    for form in rewrite.forms(shape, options):
        empty = rewrite.build(layer, options | {"form": form})
        fitted = rewrite.build(layer, options | {"form": form}, fit(name, layer, options))
        assert [(k, v.shape) for k, v in empty.state_dict().items()] == [
            (k, v.shape) for k, v in fitted.state_dict().items()
        ]
        assert repr(empty) == repr(fitted)
        empty.load_state_dict(fitted.state_dict())
        x = input_for(layer)
        assert torch.equal(empty(x), fitted(x))


@pytest.mark.parametrize("name", REWRITES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    shape=st.builds(
        Shape,
        st.sampled_from([1, 1, 4]),
        st.integers(1, 130),
        st.integers(1, 130),
        st.sampled_from([(1,), (3,), (1, 1), (3, 3), (1, 5), (7, 7), (2, 3), (3, 3, 3)]),
    )
)
def test_the_grid_is_valid_light_first_and_without_repeats(name, shape):
    rewrite = REWRITES[name]
    assume(rewrite.refuse(shape) is None)
    grid = rewrite.grid(shape)
    assert grid and all(rewrite.check(shape, options) is None for options in grid)
    assert len({tuple(options.items()) for options in grid}) == len(grid) <= 20
    ranks = [options.get("rank", options.get("rank_in")) for options in grid]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("name", REWRITES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])
@given(layer=LAYERS)
def test_the_layer_itself_is_left_alone(name, fit, layer):
    rewrite, shape = REWRITES[name], shape_of(layer)
    assume(rewrite.refuse(shape) is None)
    before, options = copy.deepcopy(layer.state_dict()), rewrite.grid(shape)[0]
    built = rewrite.build(layer, options, fit(name, layer, options))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("name", [name for name in REWRITES if name != "low-rank"])
def test_only_low_rank_takes_pointwise_and_linear_layers(name):
    assert REWRITES[name].refuse(shape_of(nn.Conv2d(64, 64, 1)))
    assert REWRITES[name].refuse(shape_of(nn.Linear(64, 64)))
    assert REWRITES["low-rank"].refuse(shape_of(nn.Linear(64, 64))) is None


@pytest.mark.parametrize("name", REWRITES)
def test_built_on_the_meta_device_without_memory(name):
    layer = nn.Conv2d(16, 16, 3, padding=1, device="meta")
    rewrite = REWRITES[name]
    built = rewrite.build(layer, rewrite.grid(shape_of(layer))[0])
    assert all(p.is_meta for p in built.parameters())
    assert built(torch.empty(1, 16, 8, 8, device="meta")).shape == (1, 16, 8, 8)


def test_the_axes_of_a_kernel():
    assert shape_of(nn.Conv2d(6, 8, (3, 5), groups=2)) == Shape(2, 4, 3, (3, 5))
    assert shape_of(nn.Linear(6, 8)) == Shape(1, 8, 6, (1,)) and Shape(1, 1, 1, (3, 5)).num_taps == 15
    layer = nn.Conv2d(6, 8, (3, 5), groups=2, dtype=torch.float64)
    w_BOIK = kernel_of(layer)
    assert w_BOIK.shape == (2, 4, 3, 15) and w_BOIK.dtype == torch.float32 and not w_BOIK.requires_grad
    assert w_BOIK[1, 2, 1, 7] == layer.weight[6, 1, 1, 2].float()


def test_only_the_named_axes_carry_the_window():
    layer = nn.Conv2d(4, 6, (3, 5), (1, 2), (2, 1), (2, 3), padding_mode="reflect")
    made = convolution(layer, 4, 7, axes=[1], bias=True)
    assert (made.kernel_size, made.stride, made.padding, made.dilation) == ((1, 5), (1, 2), (0, 1), (1, 3))
    assert made.padding_mode == "reflect" and made.bias is not None and made.out_channels == 7
    assert convolution(layer, 4, 7).padding_mode == "zeros" and convolution(layer, 4, 7).bias is None


def test_what_rewrites_know():
    assert all(is_rewritable(m) for m in (nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Linear(1, 1)))
    assert not any(is_rewritable(m) for m in (nn.ConvTranspose2d(1, 1, 1), nn.LSTM(1, 1), nn.ReLU()))


@given(largest=st.integers(1, 600), count=st.integers(1, 12))
def test_ranks_are_spread_to_the_largest_and_fast_from_16_on(largest, count):
    ranks = rank_grid(largest, count)
    assert ranks == sorted(set(ranks)) and ranks[0] >= 1 and ranks[-1] <= largest and len(ranks) <= count
    assert all(r % 8 == 0 or r < 16 or r == largest for r in ranks)
    assert largest - ranks[-1] <= 4 and ranks[0] <= math.ceil(largest / count) + 4
