"""Conventions give the published totals of other tools, and those that the tools give here where they are installed."""

import contextlib
import copy
import importlib.util
import io
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torchvision import models

from lighten import build_model
from lighten.errors import LightenError
from lighten.network.conventions import CONVENTIONS, RULES, UNITS, convention
from lighten.network.count import count
from lighten.network.record import record

TOOLS = ("torchinfo", "fvcore", "ptflops", "thop")


def total(name: str, model: nn.Module, x: Tensor) -> int:
    return sum(convention(name)(record(model, x)).values())


def told_by(tool: str, model: nn.Module, x: Tensor) -> int:
    """What the tool itself says of a copy of the model."""
    model = copy.deepcopy(model).eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        module = pytest.importorskip("fvcore.nn" if tool == "fvcore" else tool, reason=f"{tool} isn't installed")
        if tool == "torchinfo":
            return module.summary(model, input_data=x, verbose=0).total_mult_adds
        if tool == "fvcore":
            return quiet(module.FlopCountAnalysis(model, (x,))).total()
        if tool == "ptflops":
            shape = tuple(x.shape[1:])
            return module.get_model_complexity_info(model, shape, as_strings=False, print_per_layer_stat=False)[0]
        return module.profile(model, (x,), verbose=False)[0]


def quiet(analysis: object) -> object:
    """Without its warnings of what it can't count."""
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


class TimeFirst(nn.Module):
    """The head of the published CRNN, whose linear layers see all steps on their first axis."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTM(512, 256, bidirectional=True), nn.LSTM(256, 256, bidirectional=True)
        self.inner, self.outer = nn.Linear(512, 256), nn.Linear(512, 37)

    def forward(self, x: Tensor) -> Tensor:
        for recurrent, linear in ((self.first, self.inner), (self.second, self.outer)):
            x = linear(recurrent(x)[0].flatten(0, 1))[:, None]
        return x


class Published(nn.Module):
    """The whole CRNN."""

    def __init__(self):
        super().__init__()
        self.features, self.head = build_model("crnn").features, TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).squeeze(2).permute(2, 0, 1))


def published_mobilenet() -> nn.Module:
    """With a fixed pooling and a softmax."""
    model = build_model("mobilenet_v1")
    return nn.Sequential(model.features, nn.AvgPool2d(7), nn.Flatten(), model.classifier[1], nn.Softmax(1))


PUBLISHED = {
    "crnn convolutions": (lambda: build_model("crnn").features, (1, 1, 32, 320)),
    "separable convolutions": (lambda: build_model("crnn_separable").features, (1, 1, 32, 320)),
    "mobilenet v1": (published_mobilenet, (1, 3, 224, 224)),
    "crnn": (Published, (1, 1, 32, 320)),
}
TOTALS = {
    "macs": (1_992_425_472, 239_361_024, 568_740_352, 2_216_913_408),
    "flops": (2 * 1_992_425_472, 2 * 239_361_024, 2 * 568_740_352, 2 * 2_216_913_408),
    "torchinfo": (1_994_112_000, 241_757_696, 568_763_240, 2_219_287_221),
    "fvcore": (1_993_167_872, 240_103_424, 578_825_728, 2_005_319_168),
    "ptflops": (2_000_845_312, 248_491_008, 583_970_768, 2_226_849_973),
    "thop": (1_993_910_272, 240_845_824, 588_915_127, 2_219_725_312),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name):
    build, shape = PUBLISHED[name]
    found = record(build(), torch.zeros(shape))
    place = list(PUBLISHED).index(name)
    for kind, totals in TOTALS.items():
        assert sum(convention(kind)(found).values()) == totals[place], kind


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ["crnn", "crnn_separable", "mobilenet_v1"])
def test_built_in_networks_as_the_tool_counts_them(tool, name):
    x = torch.randn(1, 3, 64, 64) if name == "mobilenet_v1" else torch.randn(1, 1, 32, 64)
    model = build_model(name)
    assert total(tool, model, x) == told_by(tool, model, x)


TORCHVISION = {
    **dict.fromkeys(("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"), 64),
    **dict.fromkeys(("swin_t", "densenet121", "shufflenet_v2_x0_5", "convnext_tiny"), 64),
    **dict.fromkeys(("googlenet", "inception_v3"), 96),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_as_the_tools_count_them(name):
    options = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(models, name)(weights=None, **options)
    assert apart(model, torch.randn(1, 3, TORCHVISION[name], TORCHVISION[name])) == {}


def test_transformers_as_the_tools_count_them():
    x = torch.randn(1, 3, 32, 32)
    assert apart(models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32), x) == {}
    timm = pytest.importorskip("timm", reason="timm isn't installed")
    assert apart(timm.models.VisionTransformer(32, 8, embed_dim=16, depth=2, num_heads=2), x) == {}


def apart(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """{tool: our total and its own} of every installed tool where the two differ; skips if none is installed."""
    installed = [tool for tool in TOOLS if importlib.util.find_spec(tool)]
    if not installed:
        pytest.skip("none of the other counters is installed")
    found = record(model, x)
    totals = {tool: (sum(convention(tool)(found).values()), told_by(tool, model, x)) for tool in installed}
    return {tool: pair for tool, pair in totals.items() if pair[0] != pair[1]}


class Call(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Callable, *layers: nn.Module):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def two_parents() -> nn.Module:
    layer, activation = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
    return nn.Sequential(nn.Sequential(layer, activation), nn.Sequential(layer, activation), layer)


def masked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2))
    with torch.no_grad():  # else it can't be copied
        prune.random_unstructured(model[0], "weight", 0.5)
    return model


ZOO = {
    "one dimension": (
        lambda: nn.Sequential(
            *(nn.Conv1d(4, 8, 3, stride=2, groups=2, padding=1), nn.BatchNorm1d(8, affine=False), nn.PReLU(8)),
            *(nn.MaxPool1d(2), nn.ConvTranspose1d(8, 6, 4, stride=2, bias=False), nn.InstanceNorm1d(6, affine=True)),
            *(nn.AvgPool1d(2), nn.ELU(), nn.AdaptiveAvgPool1d(3), nn.Upsample(scale_factor=2, mode="linear")),
            *(nn.AdaptiveMaxPool1d(2), nn.AdaptiveAvgPool1d(1)),
        ),
        (4, 40),
    ),
    "convolutions and norms": (
        lambda: nn.Sequential(
            *(nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2, output_padding=1), nn.Conv2d(8, 8, 3, dilation=2)),
            *(nn.Conv2d(8, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect")),
            *(nn.BatchNorm2d(8, track_running_stats=False), nn.GroupNorm(2, 8), nn.GroupNorm(2, 8, affine=False)),
            *(nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.RMSNorm(16)),
        ),
        (4, 9, 9),
    ),
    "activations and resizing": (
        lambda: nn.Sequential(
            *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.GELU(), nn.SiLU(), nn.Hardtanh(), nn.SELU(), nn.CELU()),
            *(nn.Hardswish(), nn.Mish(), nn.Softmax(1), nn.Softmax2d(), nn.LogSoftmax(1), nn.AdaptiveAvgPool2d((3, 5))),
            *(nn.Upsample(size=(9, 9), mode="bilinear"), nn.Upsample(scale_factor=2), nn.AdaptiveMaxPool2d(4)),
            *(nn.UpsamplingBilinear2d(scale_factor=2), nn.UpsamplingNearest2d(scale_factor=2), nn.PixelShuffle(2)),
            *(nn.Upsample(scale_factor=2, mode="bicubic"), nn.AdaptiveAvgPool2d((3, 5)), nn.Dropout()),
        ),
        (4, 9, 9),
    ),
    "three dimensions": (
        lambda: nn.Sequential(
            *(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.AdaptiveMaxPool3d(3)),
            *(nn.ConvTranspose3d(4, 6, 2, stride=2), nn.InstanceNorm3d(6), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(2)),
            *(nn.Upsample(scale_factor=2, mode="trilinear"), nn.AdaptiveAvgPool3d(1)),
        ),
        (2, 8, 8, 8),
    ),
    "linear": (
        lambda: nn.Sequential(
            *(nn.Linear(6, 8, bias=False), nn.LayerNorm(8), nn.LayerNorm(8, bias=False), nn.Linear(8, 4)),
            *(nn.LayerNorm(4, elementwise_affine=False), nn.Softmax(-1), nn.PReLU()),
        ),
        (7, 6),
    ),
    **{
        f"{kind.__name__} {'batch' if is_batch_first else 'time'} first": (
            lambda kind=kind, is_batch_first=is_batch_first: Call(
                lambda x, a, b: b(a(x if is_batch_first else x.transpose(0, 1))[0])[0],
                kind(5, 6, num_layers=2, bidirectional=True, batch_first=is_batch_first),
                kind(12, 4, bias=False, batch_first=is_batch_first),
            ),
            (7, 5),
        )
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for is_batch_first in (True, False)
    },
    "projections": (
        lambda: Call(lambda x, a: a(x)[0], nn.LSTM(5, 6, num_layers=2, proj_size=3, batch_first=True)),
        (7, 5),
    ),
    "cells": (
        lambda: Call(
            lambda x, a, b, c: c(b(a(x)))[0], nn.RNNCell(5, 6), nn.GRUCell(6, 4, bias=False), nn.LSTMCell(4, 3)
        ),
        (5,),
    ),
    "attention": (
        lambda: Call(
            lambda x, a, b: b(*[a(x, x, x)[0]] * 3, need_weights=False)[0],
            nn.MultiheadAttention(8, 2),
            nn.MultiheadAttention(8, 4, batch_first=True, bias=False),
        ),
        (5, 8),
    ),
    "attention with a mask": (
        lambda: Call(
            lambda x, a: a(x, x, x, attn_mask=x.new_zeros(5, 5))[0], nn.MultiheadAttention(8, 2, batch_first=True)
        ),
        (5, 8),
    ),
    "fused attention": (lambda: Call(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 5, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
    "decoder": (
        lambda: Call(lambda x, a: a(x, x), nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, activation=F.gelu)),
        (5, 8),
    ),
    "parametrizations": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), spectral_norm(nn.Conv2d(4, 4, 3))),
        (3, 9, 9),
    ),
    "masked weights": (masked, (3, 9, 9)),
    "a layer with two parents": (two_parents, (3, 6, 6)),
    "functions": (
        lambda: Call(lambda x: F.softmax(F.silu(F.gelu(F.elu(F.relu6(F.relu(F.conv2d(x, x[:, :, :3, :3])))))), 1)),
        (3, 9, 9),
    ),
    "functional linear": (lambda: Call(lambda x: F.linear(x, x.expand(4, 3), x.new_zeros(4))), (3,)),
    "functional pooling": (
        lambda: Call(
            lambda x: (
                F.adaptive_avg_pool2d(x, 1)
                + F.adaptive_avg_pool2d(x, 2).mean()
                + F.avg_pool2d(x, 2).sum()
                + F.max_pool2d(x, 2).sum()
                + F.adaptive_max_pool2d(x, 2).sum()
                + x.mean((2, 3)).sum()
            )
        ),
        (3, 8, 8),
    ),
    "functional resizing": (
        lambda: Call(
            lambda x: (
                F.interpolate(x, scale_factor=2, mode="nearest").sum()
                + F.interpolate(x, size=(7, 7), mode="bilinear")
                + F.interpolate(x, size=(7, 7), mode="bicubic")
                + F.grid_sample(x, x.new_zeros(1, 7, 7, 2), align_corners=False)
            )
        ),
        (3, 8, 8),
    ),
    "products": (
        lambda: Call(lambda x: torch.matmul(x, x.transpose(1, 2)).bmm(x) + torch.baddbmm(x, x, x.new_ones(1, 6, 6))),
        (5, 6),
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_layers_as_the_tools_count_them(name):
    build, shape = ZOO[name]
    assert apart(build(), torch.randn(1, *shape)) == {}


@pytest.mark.parametrize("tool", ["torchinfo", "fvcore", "thop"])  # ptflops makes its own input, of floats
def test_an_embedding_as_the_tool_counts_it(tool):
    model, x = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)), torch.zeros(1, 5, dtype=torch.long)
    assert total(tool, model, x) == told_by(tool, model, x)


def test_the_comparison_tells_one_operation():
    assert (
        total("thop", nn.Linear(5, 4), torch.randn(1, 5)) == 20 == told_by("thop", nn.Linear(5, 4), torch.randn(1, 5))
    )
    assert told_by("thop", nn.Linear(5, 5), torch.randn(1, 5)) == 25


def test_every_convention_has_a_unit_and_rules_for_any_kind():
    assert set(CONVENTIONS) == set(UNITS) == set(RULES)
    assert all("" in rules for rules in RULES.values())


def test_an_unknown_convention_is_refused():
    with pytest.raises(LightenError, match=r"^there is no convention 'fvcor'; did you mean fvcore\?$"):
        convention("fvcor")


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_rows_of_a_table_add_up(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Call(lambda x: F.silu(x) @ x))
    table = count(model, torch.randn(2, 3, 8, 8), convention=name)
    assert sum(row.amount for row in table.rows) == table.amount == total(name, model, torch.randn(1, 3, 8, 8))
    assert table.unit == UNITS[name] and table.total == count(model, torch.randn(1, 3, 8, 8)).total
