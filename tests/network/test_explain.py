"""An explanation says what parts two conventions, by kind of layer and in words."""

import pytest
import torch
from torch import Tensor, nn

from lighten import build_model
from lighten.errors import LightenError
from lighten.network.conventions import CONVENTIONS
from lighten.network.explain import explain
from lighten.network.record import record


@pytest.fixture(scope="module")
def small():
    """Two convolutions of 9·3·4·36 and 16·36 MACs, two norms and an activation of 4·36 elements."""
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    return record(nn.Sequential(*layers), torch.randn(1, 3, 8, 8))


def test_the_norms_of_the_published_crnn():
    found = record(build_model("crnn").features, torch.randn(1, 1, 32, 320))
    assert explain(found, "macs", "fvcore") == (
        "batchnorm2d × 3: macs 0 (not counted), fvcore 742,400 (2 per element, 1 without scale and shift): +742,400",
        "in all: macs 1,992,425,472, fvcore 1,993,167,872: +742,400",
    )


def test_largest_difference_first_and_each_layer_that_parts(small):
    assert explain(small, "fvcore", "ptflops") == (
        "relu × 1: fvcore 0 (not counted), ptflops 288 (1 per element as a module and 1 as a function): +288",
        "conv2d × 1: fvcore 3,888 (MACs), ptflops 4,032 (MACs, and 1 per output for the bias): +144",
        "in all: fvcore 5,040, ptflops 5,472: +432",
    )


def test_the_other_way_round_the_differences_are_negative(small):
    lines = explain(small, "ptflops", "fvcore")
    assert [line.rpartition(": ")[2] for line in lines] == ["-288", "-144", "-432"]
    assert lines[0].startswith("relu × 1: ptflops 288 (") and lines[0].endswith("fvcore 0 (not counted): -288")


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_agrees_with_itself(small, name):
    (line,) = explain(small, name, name)
    assert line.startswith(f"in all: {name} ") and line.endswith(": +0")


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_differences_of_the_kinds_add_up(small, name):
    *lines, last = (int(line.rpartition(": ")[2].replace(",", "")) for line in explain(small, "macs", name))
    assert sum(lines) == last == sum(CONVENTIONS[name](small).values()) - (9 * 3 * 4 * 36 + 16 * 36)


class Functions(nn.Module):
    """A product and an activation that a container runs itself."""

    def __init__(self):
        super().__init__()
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(x) @ x.transpose(1, 2))


def test_functions_are_named_by_their_operator():
    found = record(Functions(), torch.randn(1, 5, 6))
    rule = "1 per element as a module and 1 as a function"
    assert explain(found, "macs", "ptflops")[0] == f"relu × 1: macs 0 (not counted), ptflops 30 ({rule}): +30"
    assert explain(found, "macs", "torchinfo")[0] == "matmul × 1: macs 150, torchinfo 0 (not counted): -150"


def test_small_differences_share_a_line():
    layers = [
        *(nn.ReLU(), nn.ELU(), nn.PReLU(), nn.GELU(), nn.SiLU(), nn.LeakyReLU(), nn.Softmax(1), nn.ReLU6()),
        *(nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.AvgPool2d(2)),
    ]
    lines = explain(record(nn.Sequential(*layers), torch.randn(1, 2, 4, 4)), "macs", "ptflops")
    assert len(lines) == 10
    assert lines[-2] == "3 more kinds: +80"  # two of those with 32 elements, and both of 8 of the average pooling
    assert lines[-1] == "in all: macs 0, ptflops 528: +528"


def test_unknown_conventions_are_refused(small):
    with pytest.raises(LightenError, match=r"^there is no convention 'torchinf'; did you mean torchinfo\?$"):
        explain(small, "macs", "torchinf")
    with pytest.raises(LightenError, match=r"^there is no convention '42': known are macs, flops, torchinfo"):
        explain(small, "42", "macs")
