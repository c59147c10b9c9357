"""Layers written node by node give what PyTorch gives, for every parameter that a convolution has."""

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.layers import is_known, layer_model
from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.rewrites import REWRITES
from lighten.rewrites.base import shape_of
from lighten.runtimes.onnxruntime import OnnxRuntime

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def run(module: nn.Module, x: Tensor) -> Tensor:
    content = layer_model(module, tuple(x.shape[1:]), len(x)).SerializeToString()
    return torch.from_numpy(OnnxRuntime().session(content, 1)(x.numpy()))


def assert_same(module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = module(x)
    got = run(module, x)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    num_axes = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 2, 4]))
    padding = draw(st.sampled_from([0, 1, 2, "same", "valid"]))
    stride = 1 if padding == "same" else draw(st.tuples(*[st.integers(1, 3)] * num_axes))
    return KINDS[num_axes](
        4,
        8,
        draw(st.tuples(*[st.integers(1, 4)] * num_axes)),
        stride,
        padding,
        draw(st.tuples(*[st.integers(1, 2)] * num_axes)),
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=80, deadline=None)
@given(layer=convolutions(), batch=st.sampled_from([1, 3]))
def test_any_convolution_gives_what_pytorch_gives(layer: nn.Module, batch: int):
    torch.manual_seed(0)
    sizes = (11, 9, 8)[: len(layer.kernel_size)]
    assert_same(layer, torch.randn(batch, 4, *sizes))


def test_the_comparison_fails_on_twice_the_weights():
    layer = nn.Conv2d(4, 8, 3, bias=False)
    x = torch.randn(2, 4, 8, 8)
    expected = layer(x)
    with torch.no_grad():
        layer.weight *= 2
    assert (run(layer, x) - expected).abs().max() > 0.9 * expected.abs().max()


@pytest.mark.parametrize("name", REWRITES)
def test_every_form_of_every_rewrite_is_written(name: str):
    rewrite, layer = REWRITES[name], nn.Conv2d(8, 12, 3, 2, 1)
    shape, x = shape_of(layer), torch.randn(2, 8, 10, 9)
    options = rewrite.grid(shape)[-1]
    for form in rewrite.forms(shape, options):
        assert_same(rewrite.build(layer, options | {"form": form}), x)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_any_rank(shape: tuple[int, ...], bias: bool):
    assert_same(nn.Linear(6, 4, bias=bias), torch.randn(3, *shape))


def test_the_dtype_of_the_weights_is_kept():
    assert_same(nn.Linear(6, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64))
    assert layer_model(nn.Conv2d(3, 4, 1).half(), (3, 5, 5)).graph.input[0].type.tensor_type.elem_type == 10


def test_containers_nest():
    inner = Concat([nn.Conv2d(6, 5, 1), nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU())])
    module = nn.Sequential(Repeat(2), Sum([inner, nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1)]), nn.Identity())
    assert_same(module, torch.randn(2, 3, 5, 5))


def test_an_identity_alone_is_a_valid_model():
    assert_same(nn.Identity(), torch.randn(2, 3))


def test_weights_on_the_meta_device_become_random_and_finite():
    layer = nn.Sequential(nn.Conv2d(64, 64, 3, device="meta"), nn.Flatten(), nn.Linear(64, 7, device="meta"))
    model = layer_model(nn.Sequential(layer[0]), (64, 3, 3))
    onnx.checker.check_model(model)
    out = OnnxRuntime().session(model.SerializeToString(), 1)(torch.randn(1, 64, 3, 3).numpy())
    assert 0.1 < out.std() < 10


def test_the_batch_is_fixed_as_asked():
    dims = layer_model(nn.Conv2d(3, 4, 1), (3, 5, 6), batch=7).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [7, 3, 5, 6]


def test_unknown_types_are_refused_by_name_even_as_subclasses():
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    for module in (nn.Sequential(nn.GELU()), Scaled(3, 4, 1)):
        assert not is_known(module)
        with pytest.raises(LightenError, match=r"can't write a (GELU|Scaled) to ONNX as a layer; known are Conv1d"):
            layer_model(module, (3, 4, 4))


def test_a_dtype_without_a_counterpart_is_refused():
    with pytest.raises(LightenError, match="bfloat16"):
        layer_model(nn.Conv2d(3, 4, 1, dtype=torch.bfloat16), (3, 4, 4))
