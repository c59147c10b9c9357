"""C and G against loops over positions and images, and against the exact Fisher of a softmax."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lighten.errors import LightenError
from lighten.measure import moments
from lighten.measure.moments import Collector, Moments, collect, groups_within, patches
from lighten.rewrites.base import kernel_of, shape_of

NUMPY_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.fixture(autouse=True)
def every_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MAX_POSITIONS_PER_AXIS", 10_000)


def batches(*inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x, torch.zeros(len(x))) for x in inputs]


class Classifier(nn.Module):
    """A layer between a fixed smooth step and a linear head: logits (N, 3)."""

    def __init__(self, layer: nn.Module, num_features: int, inplace: bool = False):
        super().__init__()
        self.layer, self.act, self.head = layer, nn.ELU(inplace=inplace), nn.Linear(num_features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.layer(x)).flatten(1))


def classifier(layer: nn.Module, x: Tensor, **options: bool) -> Classifier:
    return Classifier(layer, layer(x[:1]).numel(), **options).eval()


def input_moment(layer: nn.Conv2d, x: Tensor) -> np.ndarray:
    """C by loops: every output position of every image, one group after the other."""
    (top, left), (k1, k2), (s1, s2), (d1, d2) = layer.padding, layer.kernel_size, layer.stride, layer.dilation
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (top, top), (left, left)), NUMPY_MODE[layer.padding_mode])
    _, _, height, width = layer(x).shape
    size = layer.in_channels // layer.groups
    c = np.zeros((layer.groups, size * k1 * k2, size * k1 * k2))
    for group in range(layer.groups):
        for image in padded[:, group * size : (group + 1) * size]:
            for i in range(height):
                for j in range(width):
                    read = [
                        image[channel, i * s1 + a * d1, j * s2 + b * d2]
                        for channel in range(size)
                        for a in range(k1)
                        for b in range(k2)
                    ]
                    c[group] += np.outer(read, read) / (len(x) * height * width)
    return c


def gradient_moment(layer: nn.Module, model: Classifier, x: Tensor, seed: int) -> Tensor:
    """G by loops: the gradient of every image alone, at the same random signs; summed over positions."""
    torch.manual_seed(seed)
    signs = torch.randint(0, 2, (len(x), 3)) * 2.0 - 1
    size = shape_of(layer).num_outputs
    g = torch.zeros(shape_of(layer).num_groups, size, size)
    for image, sign in zip(x, signs, strict=True):
        y = layer(image[None]).detach().requires_grad_()
        logits = model.head(nn.functional.elu(y).flatten(1))[0]
        p = logits.detach().softmax(0)
        v = p.sqrt() * sign - p * (p.sqrt() * sign).sum()
        gradient = torch.autograd.grad(logits, y, v)[0][0]
        columns = gradient.flatten(1).T if gradient.ndim > 1 else gradient[None]
        for column in columns:
            for group, part in enumerate(column.split(size)):
                g[group] += torch.outer(part, part) / len(x)
    return g


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, (2, 3), (2, 1), (1, 0)),
        nn.Conv2d(2, 3, 3, dilation=(1, 2), padding=2, padding_mode="reflect"),
        nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="replicate"),
        nn.Conv2d(4, 4, (3, 1), 2, (1, 0), groups=4, padding_mode="circular"),
    ],
    ids=["plain", "stride", "reflect", "groups", "depthwise"],
)
def test_moments_of_a_convolution_are_those_of_the_loops(layer):
    x = torch.randn(5, layer.in_channels, 6, 7)
    model = classifier(layer, x)
    found = collect(model, ["layer"], batches(x), seed=3)["layer"]
    assert found.c_BPP.dtype == found.g_BOO.dtype == torch.float32
    np.testing.assert_allclose(found.c_BPP, input_moment(layer, x), rtol=1e-4, atol=1e-5)
    g_BOO = gradient_moment(layer, model, x, 3)
    assert g_BOO.abs().max() > 0
    torch.testing.assert_close(found.g_BOO, g_BOO, rtol=1e-4, atol=1e-5 * float(g_BOO.abs().max()))


def test_moments_of_a_linear_layer_are_those_of_the_loops():
    layer, x = nn.Linear(4, 5), torch.randn(6, 4)
    model = classifier(layer, x)
    found = collect(model, ["layer"], batches(x))["layer"]
    torch.testing.assert_close(found.c_BPP[0], sum(torch.outer(row, row) for row in x) / 6)
    torch.testing.assert_close(found.g_BOO, gradient_moment(layer, model, x, 0))


@settings(max_examples=60)
@given(data=st.data())
def test_the_kernel_times_the_patches_is_the_output(data):
    num_axes, groups = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2]))
    padding = data.draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[num_axes - 1](
        groups * data.draw(st.integers(1, 3)),
        groups * data.draw(st.integers(1, 3)),
        tuple(data.draw(st.sampled_from([1, 3, 3, 5])) if axis == 0 else 3 for axis in range(num_axes)),
        1 if padding == "same" else data.draw(st.integers(1, 3)),
        padding,
        data.draw(st.integers(1, 2)),
        groups,
        bias=False,
        padding_mode=data.draw(st.sampled_from(list(NUMPY_MODE))),
    )
    x = torch.randn(2, layer.in_channels, *[9, 8, 7][:num_axes])
    y_BON = (kernel_of(layer).flatten(2) @ patches(layer, x, groups)).flatten(0, 1)
    torch.testing.assert_close(y_BON, layer(x).detach().transpose(0, 1).flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["same", (1, 2)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_windows_of_even_size(padding):
    layer, x = nn.Conv2d(2, 3, (2, 4), padding=padding, bias=False), torch.randn(2, 2, 6, 7)
    y = kernel_of(layer).flatten(2) @ patches(layer, x, 1)
    torch.testing.assert_close(y[0], layer(x).detach().transpose(0, 1).flatten(1), rtol=1e-4, atol=1e-5)


def test_large_images_are_read_at_some_positions_only(monkeypatch):
    monkeypatch.setattr(moments, "MAX_POSITIONS_PER_AXIS", 4)
    layer, x = nn.Conv2d(1, 1, 1), torch.arange(200.0).view(2, 1, 10, 10)
    read = patches(layer, x, 1)[0, 0].view(2, 4, 4)
    assert set(read.flatten().tolist()) <= set(range(200)) and read.unique().numel() == 32
    assert torch.equal(read[1], read[0] + 100)


def test_the_average_is_over_all_batches():
    x = torch.randn(12, 4)
    model = classifier(nn.Linear(4, 5), x)
    whole = collect(model, ["layer"], batches(x))["layer"]
    parts = collect(model, ["layer"], batches(x[:7], x[7:]))["layer"]
    torch.testing.assert_close(whole.c_BPP, parts.c_BPP)
    assert parts.g_BOO.diagonal(dim1=1, dim2=2).sum() < 3 * whole.g_BOO.diagonal(dim1=1, dim2=2).sum()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradients_moment_is_the_fisher_of_the_softmax(temperature):
    """E[v vᵀ] = diag(p) − p pᵀ: also what the gradients at labels drawn from p come to."""
    first, last = nn.Linear(2, 5), nn.Linear(5, 4)
    model = nn.Sequential(first, last)
    x = torch.randn(2).expand(20_000, 2)
    found = collect(model, ["0", "1"], batches(x), temperature=temperature)
    with torch.no_grad():
        p = (model(x[:1])[0] / temperature).softmax(0)
        fisher = p.diag() - torch.outer(p, p)
        of_first = last.weight.T @ fisher @ last.weight
        labels = torch.multinomial(p, 20_000, replacement=True)
        drawn = p - one_hot(labels, 4)
    for g, exact in ((found["1"].g_BOO[0], fisher), (found["0"].g_BOO[0], of_first)):
        assert float((g - exact).abs().max()) < 0.03 * float(exact.abs().max())
    assert float((drawn.T @ drawn / 20_000 - fisher).abs().max()) < 0.05 * float(fisher.abs().max())


def test_an_activation_in_place_changes_nothing():
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(5, 2, 6, 6)
    model = classifier(layer, x)
    apart = collect(model, ["layer"], batches(x))["layer"]
    model.act.inplace = True
    same = collect(model, ["layer"], batches(x))["layer"]
    torch.testing.assert_close(same.g_BOO, apart.g_BOO)
    torch.testing.assert_close(same.c_BPP, apart.c_BPP)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_frozen_network_has_the_same_moments(inplace):
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(5, 2, 6, 6)
    model = classifier(layer, x, inplace=inplace)
    free = collect(model, ["layer"], batches(x))["layer"]
    model.requires_grad_(False)
    frozen = collect(model, ["layer"], batches(x))["layer"]
    assert torch.equal(frozen.g_BOO, free.g_BOO) and frozen.g_BOO.abs().max() > 0
    assert not any(p.requires_grad for p in model.parameters())


class OverTime(nn.Module):
    """A linear layer over time steps, the batch first or second."""

    def __init__(self, time_first: bool):
        super().__init__()
        self.layer, self.time_first = nn.Linear(4, 3), time_first

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.layer(x_NTC.transpose(0, 1)).sum(0) if self.time_first else self.layer(x_NTC).sum(1)


def test_images_are_counted_by_the_batch_whichever_axis_is_time():
    model, x = OverTime(time_first=False), torch.randn(6, 9, 4)
    wanted = collect(model, ["layer"], batches(x))["layer"]
    model.time_first = True
    found = collect(model, ["layer"], batches(x))["layer"]
    torch.testing.assert_close(found.g_BOO, wanted.g_BOO)
    torch.testing.assert_close(found.c_BPP, wanted.c_BPP)


def test_a_layer_without_influence_has_no_gradient():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.used(x)

    found = collect(Aside(), ["used", "aside"], batches(torch.randn(5, 4)))
    assert found["aside"].g_BOO.abs().max() == 0 < found["used"].g_BOO.abs().max()


class Counted(nn.Sequential):
    """Three layers, and how often they ran."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3))
        self.num_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_passes += 1
        return super().forward(x)


def test_a_memory_limit_splits_the_work_and_changes_no_result():
    model, data = Counted(), batches(torch.randn(4, 2, 6, 6), torch.randn(3, 2, 6, 6))
    together = collect(model, ["0", "1", "3"], data)
    assert model.num_passes == 2
    one_by_one = collect(model, ["0", "1", "3"], data, memory_limit_bytes=1)
    assert model.num_passes == 2 + 3 * 2
    assert list(together) == list(one_by_one) == ["0", "1", "3"]
    for name, found in together.items():
        torch.testing.assert_close(found.c_BPP, one_by_one[name].c_BPP)
        torch.testing.assert_close(found.g_BOO, one_by_one[name].g_BOO)


def test_groups_fill_up_to_the_limit():
    model, names = Counted(), ["0", "1", "3"]
    sizes = {"0": 4 * (18**2 + 4**2), "1": 4 * (36**2 + 6**2), "3": 4 * (96**2 + 3**2)}
    assert groups_within(model, names, sum(sizes.values())) == [names]
    assert groups_within(model, names, sum(sizes.values()) - 1) == [["0", "1"], ["3"]]
    assert groups_within(model, names, sizes["0"] + sizes["1"] - 1) == [["0"], ["1"], ["3"]]
    assert groups_within(model, [], 10) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_layer(value):
    model, x = Counted(), torch.randn(4, 2, 6, 6)
    with torch.no_grad():
        model[1].bias[0] = value
    message = r"^calibration: the layer '3' meets values that aren't finite \(NaN or infinity\)$"
    with pytest.raises(LightenError, match=message):
        collect(model, ["3"], batches(x))
    x[0, 0, 0, 0] = value
    with pytest.raises(LightenError, match=message.replace("'3'", "'0'")):
        collect(model, ["0", "1"], batches(x))


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def breaking_off() -> Iterable[tuple[Tensor, Tensor]]:
    yield from batches(torch.randn(2, 2, 6, 6))
    raise OSError("the disk is gone")


@pytest.mark.parametrize("data", [breaking_off, lambda: batches(torch.randn(2, 5, 6, 6))], ids=["data", "model"])
def test_no_hook_stays_even_after_an_error(data: Callable):
    model = Counted()
    collect(model, ["0", "3"], batches(torch.randn(2, 2, 6, 6)))
    assert hooks_of(model) == 0
    with pytest.raises((OSError, RuntimeError)):
        collect(model, ["0", "3"], data())
    assert hooks_of(model) == 0


def test_random_state_and_gradients_are_left_alone():
    model = Counted()
    state = torch.get_rng_state()
    first = collect(model, ["0"], data := batches(torch.ones(2, 2, 6, 6)), seed=1)["0"]
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
    assert torch.equal(collect(model, ["0"], data, seed=1)["0"].g_BOO, first.g_BOO)
    assert not torch.equal(collect(model, ["0"], data, seed=2)["0"].g_BOO, first.g_BOO)


def test_a_collector_reads_and_averages():
    collector = Collector(layer := nn.Linear(2, 2))
    y = layer(x := torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.equal(collector.output, y)
    collector.read_gradient(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), num_images=2)
    collector.handle.remove()
    found: Moments = collector.moments()
    assert torch.equal(found.c_BPP[0], x.T @ x / 2)
    assert torch.equal(found.g_BOO[0], torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
