"""Every rule finds what it is for, with figures worked by hand, and nothing in networks that have no such fault."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.models import MODELS, build_model, input_shape
from lighten.network.lint import RULES, Finding, lint
from lighten.network.trace import trace


def linted(*layers: nn.Module, shape: tuple[int, ...] = (3, 8, 8)) -> list[tuple[str, str]]:
    return [(finding.rule, finding.layer) for finding in lint(nn.Sequential(*layers), torch.zeros(1, *shape))]


def the_finding(*layers: nn.Module, shape: tuple[int, ...] = (3, 8, 8)) -> Finding:
    (finding,) = lint(nn.Sequential(*layers), torch.zeros(1, *shape))
    return finding


def test_rules_are_named_after_their_functions():
    start = (nn.Conv2d(1, 1, 3, 2, padding=4), nn.Conv2d(1, 17, 1), nn.BatchNorm2d(17), nn.BatchNorm2d(17))
    end = (nn.MaxPool2d(2), nn.Conv2d(17, 8, 5, padding=2), nn.Flatten(), nn.Linear(32, 4), nn.Softmax(1))
    found = lint(nn.Sequential(*start, *end), torch.zeros(1, 1, 3, 3))
    assert {finding.rule for finding in found} == {rule.__name__ for rule in RULES}
    assert all(rule.__doc__ for rule in RULES)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "densenet121"])
def test_no_false_alarm_in_torchvision(name):
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        model = getattr(models, name)()
    assert lint(model, torch.empty(1, 3, 224, 224, device="meta")) == ()


TRUE_OF_OURS = {
    "crnn": {"bias_before_norm": 3, "fixed_resolution": 1},
    "crnn_separable": {"one_channel_stem": 1, "bias_before_norm": 3, "fixed_resolution": 1},
    "digits_vgg": {"fixed_resolution": 2},
    "vgg16_bn": {"wide_kernel": 3, "bias_before_norm": 13},
}


@pytest.mark.parametrize("name", MODELS)
def test_of_our_networks_what_is_so(name):
    found = lint(build_model(name), torch.zeros(1, *input_shape(name)))
    assert Counter(finding.rule for finding in found) == TRUE_OF_OURS.get(name, {})


def test_a_dense_stem_is_no_fault():
    model = build_model("crnn_separable:dense_stem=true")
    assert "one_channel_stem" not in {f.rule for f in lint(model, torch.zeros(1, 1, 32, 320))}


# padding


def test_the_last_depthwise_layer_of_mobilenet_v1_as_it_is_often_written():
    finding = the_finding(nn.Conv2d(1024, 1024, 3, 2, 4, groups=1024), shape=(1024, 7, 7))
    assert (finding.rule, finding.layer) == ("padding_taps", "0")
    share = 100 * (1 - (11 / 21) ** 2)  # along each axis 11 of 21 taps meet a pixel; 19 of 21 with stride and padding 1
    assert (
        finding.message == f"{share:.1f} % of its products are with padding (stride 2×2, padding 4×4 on a map of 7×7)"
    )
    assert round(1 - 11**2 / 19**2, 3) == 0.665  # the two thirds by which it is worse
    assert linted(nn.Conv2d(1024, 1024, 3, 1, 1, groups=1024), shape=(1024, 7, 7)) == []


def products_met(layer: nn.Conv1d | nn.Conv2d, *size: int) -> Tensor:
    """For each tap how many places meet a pixel with it: by the gradient of the outputs' sum on ones."""
    probe = type(layer)(
        1,
        1,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias=False,
        padding_mode=layer.padding_mode,
    )
    probe(torch.ones(1, 1, *size)).sum().backward()
    return probe.weight.grad[0, 0]


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 6),
    st.integers(1, 2),
)  # fmt: skip
def test_padding_is_counted_exactly(height, width, k1, k2, stride, padding, dilation):
    extent = [dilation * (k - 1) + 1 for k in (k1, k2)]
    if any(e > size + 2 * padding for e, size in zip(extent, (height, width), strict=True)):
        return
    layer = nn.Conv2d(4, 8, (k1, k2), stride, padding, dilation, groups=2)
    met = products_met(layer, height, width)
    places = math.prod(layer(torch.zeros(1, 4, height, width)).shape[2:])
    share, dead = 1 - float(met.sum()) / (places * met.numel()), int((met == 0).sum())
    found = {finding.rule: finding for finding in lint(nn.Sequential(layer), torch.zeros(1, 4, height, width))}
    found.pop("fixed_resolution", None)
    if extent[0] > height or extent[1] > width:
        wide = found.pop("wide_kernel")
        assert (wide.params, wide.macs) == (dead * 8 * 2, dead * 8 * 2 * places)
        assert (f"{dead} of {k1 * k2} taps" if dead else f"{100 * share:.1f} %") in wide.message
    elif share > 0.5 + 1e-9:
        assert f"{100 * share:.1f} % of its products" in found.pop("padding_taps").message
    elif share > 0.5 - 1e-9:
        found.pop("padding_taps", None)
    assert not found


def test_a_kernel_on_a_single_pixel():
    finding = the_finding(nn.Conv2d(16, 32, 3, padding="same"), shape=(16, 1, 1))
    assert finding == Finding(
        "wide_kernel",
        "0",
        "its 3×3 kernel is wider than its map of 1×1: 8 of 9 taps meet nothing but padding",
        8 * 16 * 32,
        8 * 16 * 32,
    )
    cost = (trace(nn.Conv2d(16, 32, size, padding="same"), torch.zeros(1, 16, 1, 1)).cost for size in (3, 1))
    dense, pointwise = cost
    assert (dense.macs - pointwise.macs, dense.params - pointwise.params) == (finding.macs, finding.params)


def test_a_layer_that_also_meets_a_larger_map_is_not_too_wide():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x).mean((2, 3)) + self.head(F.adaptive_avg_pool2d(x, 1)).mean((2, 3))

    assert lint(Pyramid(), torch.zeros(1, 8, 8, 8)) == ()


def test_padding_that_repeats_pixels_wastes_nothing():
    assert linted(nn.Conv2d(3, 8, 3, 2, 4, padding_mode="circular"), shape=(3, 7, 7)) == []
    assert linted(nn.Conv1d(3, 8, 3, padding="valid"), shape=(3, 9)) == []


# stems, channels


def test_a_depthwise_stem_on_a_grey_image():
    stem = (nn.Conv2d(1, 1, 5, padding=2), nn.ReLU(), nn.Conv2d(1, 32, 1))
    finding = the_finding(*stem, shape=(1, 9, 9))
    assert (finding.rule, finding.layer) == ("one_channel_stem", "0")
    assert finding.message == (
        "all 32 maps after it are multiples of one filtered image; use one 5×5 convolution from 1 to 32 channels"
    )
    maps = nn.Sequential(stem[0], stem[2])(torch.randn(1, 1, 9, 9))[0] - stem[2].bias[:, None, None]
    assert torch.linalg.matrix_rank(maps.detach().flatten(1), rtol=1e-4) == 1


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(1, 4, 5), nn.Conv2d(4, 32, 1)),
        (nn.Conv2d(1, 1, 1), nn.Conv2d(1, 32, 1)),
        (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 32, 3)),
        (nn.Conv2d(1, 32, 1), nn.Conv2d(32, 1, 3)),
    ],
)
def test_other_stems_are_no_fault(layers):
    assert linted(*layers, shape=(1, 9, 9)) == []


@pytest.mark.parametrize(
    ("channels", "nearest"), [(17, 16), (20, 16), (21, 24), (23, 24), (63, 64), (24, None), (8, None), (12, None)]
)
def test_channel_multiples(channels, nearest):
    found = lint(nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1)), torch.zeros(1, 3, 8, 8))
    said = [f"its {channels} output channels are no multiple of 8: the nearest is {nearest}"] if nearest else []
    assert [finding.message for finding in found] == said


def test_channels_that_the_task_gives_or_that_cost_nothing():
    assert linted(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 21, 1)) == []
    assert linted(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 21, 1), nn.Upsample(scale_factor=2)) == []
    assert linted(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 17, 1), nn.ReLU()) == []


# norms


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), (3, 8, 8)),
        (nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), (3, 8, 8)),
        (nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), (3, 8, 8)),
        (nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8), (3, 8, 8)),
        (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), (3, 9)),
        (nn.Linear(5, 8), nn.BatchNorm1d(8), (5,)),
    ],
)
def test_a_bias_that_the_norm_takes_away(layer, norm, shape):
    finding = the_finding(layer, norm, nn.ReLU(), shape=shape)
    assert finding == Finding("bias_before_norm", "0", "the norm '1' takes its bias away: leave the bias out", 0, 8)
    x, network = torch.randn(4, *shape), nn.Sequential(layer, norm).train()
    before = network(x)
    with torch.no_grad():
        layer.bias += torch.randn(8)
    assert torch.allclose(network(x), before, atol=1e-4)
    layer.bias = None
    assert linted(layer, norm, nn.ReLU(), shape=shape) == []


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), (3, 8, 8)),
        ((nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(8)), (3, 8, 8)),
        ((nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)), (3, 8, 8)),
        ((nn.Linear(5, 8), nn.LayerNorm(8)), (5,)),
        ((nn.Linear(5, 8), nn.BatchNorm1d(3)), (3, 5)),
        ((nn.Conv1d(3, 8, 3), nn.Flatten(1), nn.BatchNorm1d(48)), (3, 8)),
    ],
)
def test_a_bias_that_counts(layers, shape):
    assert linted(*layers, shape=shape) == []


class Skip(nn.Module):
    """The convolution's output goes round the norm too, or it is called again without one."""

    def __init__(self, again: bool):
        super().__init__()
        self.conv, self.norm, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), again

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.conv(self.norm(y)) if self.again else y + self.norm(y)


@pytest.mark.parametrize("again", [True, False])
def test_a_bias_that_counts_elsewhere(again):
    assert lint(Skip(again), torch.zeros(1, 8, 8, 8)) == ()


def test_norms_in_a_row():
    convolution = nn.Conv2d(3, 8, 3, bias=False)
    finding = the_finding(convolution, nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    message = "the norm '2' follows at once: leave one of them out"
    assert finding == Finding("norm_after_norm", "1", message, 0, 16)
    assert linted(nn.LayerNorm(8), nn.LayerNorm(8), shape=(8,)) == [("norm_after_norm", "0")]
    assert linted(nn.InstanceNorm2d(3), nn.InstanceNorm2d(3)) == [("norm_after_norm", "0")]
    assert linted(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)) == []
    assert linted(nn.LayerNorm(8), nn.BatchNorm1d(8), shape=(8,)) == []
    assert linted(nn.InstanceNorm2d(3), nn.ReLU()) == []


# outputs, resolutions


@pytest.mark.parametrize(
    ("layers", "shape", "num_classes"),
    [
        ((nn.Linear(8, 1000), nn.Softmax(1)), (8,), 1000),
        ((nn.Linear(8, 10), nn.Softmax(-1)), (8,), 10),
        ((nn.Conv2d(3, 21, 1), nn.Softmax(1)), (3, 4, 4), 21),
        ((nn.Conv2d(3, 21, 1), nn.Softmax2d()), (3, 4, 4), 21),
    ],
)
def test_a_softmax_at_the_end(layers, shape, num_classes):
    finding = the_finding(*layers, shape=shape)
    certain = F.one_hot(torch.tensor([0]), num_classes).double()  # the best that a softmax can give
    bound = F.cross_entropy(certain, torch.tensor([0])).item()
    assert finding.rule == "final_softmax" and finding.layer == "1"
    assert f"can't get below {bound:.2f} on {num_classes} classes" in finding.message
    assert num_classes != 1000 or "5.91" in finding.message


def test_a_softmax_inside_is_no_fault():
    assert linted(nn.Linear(8, 10), nn.LogSoftmax(1), shape=(8,)) == []
    assert linted(nn.Softmax(1), nn.Linear(8, 10), shape=(8,)) == []


def test_a_flattened_map_fits_one_resolution():
    found = lint(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 5)), torch.zeros(1, 3, 8, 8))
    assert [(finding.rule, finding.layer) for finding in found] == [("fixed_resolution", "2")] * 2
    assert found[0].message.startswith("it takes no other height: an input of 16×8 fails here (")
    assert found[1].message.startswith("it takes no other width: an input of 8×16 fails here (")
    assert linted(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 5)) == []


class FixedPooling(nn.Module):
    """As MobileNet V1 is often written: what is left of a larger map ends up on the batch axis."""

    def __init__(self):
        super().__init__()
        self.pool, self.classifier = nn.AvgPool2d(8), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(x).view(-1, 3))


def test_a_fixed_pooling_that_makes_several_results_of_one_image():
    found = lint(FixedPooling(), torch.zeros(3, 3, 8, 8))
    assert [(finding.rule, finding.layer) for finding in found] == [("fixed_resolution", "classifier")] * 2
    assert found[0].message == "it takes no other height: of one input of 16×8 it makes 2 results"


def test_results_whose_first_axis_is_time():
    class TimeFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(2).permute(2, 0, 1)

    assert lint(TimeFirst(), torch.zeros(1, 3, 8, 8)) == ()


def test_only_images_are_tried_at_another_size():
    assert lint(nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), torch.zeros(1, 3, 8)) == ()
    assert lint(nn.Sequential(nn.Linear(8, 5)), (torch.zeros(1, 8),)) == ()


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4)).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert lint(model, torch.randn(2, 3, 8, 8)) and model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_a_model_that_fails():
    with pytest.raises(LightenError, match="^the model fails on an input of shape"):
        lint(nn.Linear(3, 4), torch.zeros(1, 5))
