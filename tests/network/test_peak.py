"""Peak memory by hand for each rule, and what ONNX Runtime allocates for whole networks."""

import runpy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

import lighten
from lighten.network.peak import Buffer, block_bytes, buffers_of, layout_of, peak_bytes
from lighten.network.record import record

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "peak_memory.py"))
IMAGE = torch.zeros(1, 16, 8, 8)
MAP = 4 * 16 * 8 * 8  # bytes of a map of the same shape


class Runs(nn.Module):
    """Convolutions, named a, b and c, in whatever order a function calls them."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(16)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def peak_of(forward) -> int:
    """Of the function, on an image of 16 channels."""
    return peak_bytes(record(Runs(forward), IMAGE))


def within(forward) -> int:
    """Bytes of the block, without the result."""
    return block_bytes(buffers_of(layout_of(record(Runs(forward), IMAGE))))


def test_the_input_is_the_callers_and_a_result_lies_outside():
    assert peak_of(lambda m, x: m.a(x)) == MAP
    assert within(lambda m, x: m.a(x)) == 0


def test_what_is_read_and_what_is_written_live_together():
    assert within(lambda m, x: m.b(m.a(x))) == MAP
    assert within(lambda m, x: m.c(m.b(m.a(x)))) == 2 * MAP


def test_a_chain_needs_two_buffers_however_long_it_is():
    assert within(lambda m, x: m.a(m.a(m.a(m.a(m.a(m.a(x))))))) == 2 * MAP


def test_a_norm_and_an_activation_write_over_what_they_read():
    assert within(lambda m, x: m.b(torch.relu(m.norm(m.a(x))))) == MAP
    assert within(lambda m, x: m.b(torch.relu_(m.norm(m.a(x))))) == MAP
    assert within(lambda m, x: m.b(nn.functional.hardtanh(m.norm(m.a(x)), inplace=True))) == MAP


def test_a_norm_that_follows_no_convolution_needs_memory_of_its_own():
    assert within(lambda m, x: m.b(m.norm(nn.functional.max_pool2d(m.a(x), 1)))) == 2 * MAP
    assert within(lambda m, x: m.norm(x).flatten(1).softmax(1)) == MAP

    def shared(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return m.b(m.norm(first) + first)

    assert within(shared) == 2 * MAP


def test_an_activation_leaves_what_is_still_needed():
    def forward(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return torch.relu(first) * m.b(first).sigmoid()

    def fewer(m: Runs, x: Tensor) -> Tensor:
        return torch.relu(m.a(x)).sigmoid() * 2

    assert within(forward) == 3 * MAP and within(fewer) == MAP


def test_the_callers_input_is_not_written_over():
    assert within(lambda m, x: torch.relu(x).flatten(1).softmax(1)) == MAP


@pytest.mark.parametrize("add", [torch.add, Tensor.add_])
def test_a_convolution_whose_result_is_added_writes_over_the_other_part(add):
    def forward(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return m.a(add(m.norm(m.c(m.b(first))), first))  # a block as in a residual network

    assert within(forward) == 2 * MAP


def test_a_convolution_whose_result_is_multiplied_needs_memory_of_its_own():
    def forward(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return m.a(m.norm(m.c(m.b(first))) * first)

    assert within(forward) == 3 * MAP


def test_the_other_part_is_kept_where_it_is_needed_later():
    def forward(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return m.a(m.c(first) + first) * first

    assert within(forward) == 3 * MAP


def test_a_reader_in_the_plain_layout_gets_a_copy():
    assert within(lambda m, x: m.a(x).flatten(1).softmax(1)) == 2 * MAP
    assert within(lambda m, x: x.flatten(1).softmax(1).exp().sum(1)) == MAP  # no convolution, no copy


def test_a_convolution_gets_a_copy_of_what_is_plain():
    assert within(lambda m, x: m.a(x.flatten(1).softmax(1).view(1, 16, 8, 8))) == 2 * MAP
    narrow = nn.Conv2d(8, 16, 1)  # reads the plain layout itself
    assert within(lambda m, x: narrow(x.flatten(1).softmax(1).view(1, 8, 8, 16))) == MAP


@pytest.mark.parametrize(("width", "maps"), [(16, 1), (17, 2), (24, 2), (32, 2), (33, 3)])
def test_channels_fill_whole_blocks(width: int, maps: int):
    there, back = nn.Conv2d(16, width, 1), nn.Conv2d(width, 16, 1)
    assert within(lambda m, x: back(there(x))) == maps * MAP


@pytest.mark.parametrize(
    ("groups", "copies"), [(1, 0), (64, 0), (4, 0), (2, 0), (8, 1), (16, 1)]
)  # groups of 64, 1, 16 and 32 channels fit, those of 8 and 4 don't
def test_groups_that_fill_no_block_run_in_the_plain_layout(groups: int, copies: int):
    there, grouped = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=groups)
    steps = layout_of(record(Runs(lambda m, x: grouped(there(x))), IMAGE)).steps
    assert len(steps) == 2 + copies


def test_a_transposed_convolution_runs_in_the_plain_layout():
    transposed = nn.ConvTranspose2d(16, 4, 2, groups=2)
    assert within(lambda m, x: transposed(m.a(x)).relu().exp().flatten(1)) == 2 * MAP


def test_a_gate_on_channels_is_plain():
    def forward(m: Runs, x: Tensor) -> Tensor:
        first = m.a(x)
        return m.b(first * first.mean((2, 3), keepdim=True))

    assert (
        len(layout_of(record(Runs(forward), IMAGE)).steps) == 4 + 2
    )  # the map becomes plain, and their product is in blocks again


@pytest.mark.parametrize(
    ("activation", "maps"), [(torch.relu, 1), (nn.functional.hardswish, 1), (nn.functional.silu, 2)]
)
def test_an_activation_in_place_or_not(activation, maps: int):
    assert within(lambda m, x: m.b(activation(m.a(x)))) == maps * MAP


def test_a_concatenation_reads_the_layout_of_convolutions():
    wide = nn.Conv2d(32, 16, 1)
    assert within(lambda m, x: wide(torch.cat([m.a(x), m.b(x)], 1))) == 4 * MAP


def test_views_take_no_memory():
    assert within(lambda m, x: x.exp().flatten(1).view(16, 64).t().softmax(0)) == MAP


def test_outputs_that_nobody_reads_take_no_memory():
    assert within(lambda m, x: m.b(nn.functional.max_pool2d(m.a(x), 2))) == MAP + MAP // 4  # without the indices


def test_memory_is_held_for_the_next_tensor_of_the_same_shape():
    def forward(m: Runs, x: Tensor) -> Tensor:
        small = nn.functional.max_pool2d(m.b(m.a(x)), 2)
        return m.b(nn.functional.interpolate(m.a(small), scale_factor=2))

    buffers = buffers_of(layout_of(record(Runs(forward), IMAGE)))
    large = [buffer for buffer in buffers if buffer.form == (MAP, (1, 16, 8, 8))]
    assert len(large) == 2 and max(buffer.last for buffer in large) > 4


def test_a_buffer_takes_the_tightest_gap():
    def buffer(size: int, first: int, last: int) -> Buffer:
        return Buffer((size, ()), first, last)

    gaps = [buffer(50, 0, 1), buffer(10, 0, 9), buffer(20, 0, 1), buffer(10, 0, 9)]  # 50 and 20 bytes fall free
    assert block_bytes(gaps) == 90
    assert block_bytes([*gaps, buffer(20, 2, 3)]) == 90
    assert block_bytes([*gaps, buffer(15, 2, 9), buffer(50, 3, 9)]) == 90  # the first one left the large gap alone
    assert block_bytes([*gaps, buffer(60, 2, 3)]) == 150  # no gap holds it
    assert block_bytes([]) == 0


@pytest.mark.parametrize(
    ("build", "shape", "allocated"),
    [  # what ONNX Runtime 1.31.1 was seen to allocate, benchmarks/peak_memory.py
        (lambda: lighten.build_model("resnet20"), (1, 3, 32, 32), 196_648),
        (lambda: lighten.build_model("crnn"), (1, 1, 32, 320), 3_293_396),
        (torchvision.models.mobilenet_v2, (1, 3, 224, 224), 6_827_936),
        (torchvision.models.resnet50, (1, 3, 224, 224), 7_229_344),
        (torchvision.models.mobilenet_v3_large, (1, 3, 224, 224), 4_018_080),
        (torchvision.models.squeezenet1_1, (1, 3, 224, 224), 3_932_576),
        (torchvision.models.densenet121, (1, 3, 224, 224), 11_243_424),
        (torchvision.models.efficientnet_b0, (1, 3, 224, 224), 12_850_080),
    ],
)
def test_whole_networks_are_predicted_to_the_per_cent(build, shape, allocated):
    with torch.device("meta"):
        model, example = build(), torch.zeros(shape)
    assert peak_bytes(record(model, example)) == pytest.approx(allocated, rel=0.01)


def test_a_batch_needs_its_multiple():
    with torch.device("meta"):
        model = lighten.build_model("resnet20")
        one, four = (peak_bytes(record(model, (torch.zeros(n, 3, 32, 32),))) for n in (1, 4))
    assert four == 4 * one


def test_prediction_against_onnxruntime_itself():
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(32, 10),
    )
    example = torch.zeros(1, 3, 32, 32)
    allocated = BENCHMARK["allocated_bytes"](model.eval(), example)
    if allocated is None:
        pytest.skip("this version of ONNX Runtime doesn't tell what it allocates")
    assert peak_bytes(record(model, example)) == pytest.approx(allocated, rel=0.2)
