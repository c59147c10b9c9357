"""CRNN, which reads a line of text (Shi, Bai & Yao 2015, table 1), dense and depthwise separable.

Convolutions and poolings turn the line into a row of features, and a head reads the row; CTC makes text of the logits,
class 0 being its blank. The separable form replaces each convolution by a depthwise and a pointwise one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.models.sequence import make_head

HEIGHT, MIN_WIDTH = 32, 4


def halve() -> nn.MaxPool2d:
    """Half the height and half the width."""
    return nn.MaxPool2d(2)


def halve_height() -> nn.MaxPool2d:
    """Half the height; the row of features grows by a step."""
    return nn.MaxPool2d(2, (2, 1), (0, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """A convolution, its norm where it has one, its ReLU, and its pooling where it has one."""

    channels: int
    kernel: int = 3
    padding: int = 1
    norm: bool = False
    pooling: Callable[[], nn.Module] | None = None


ROWS = (  # Shi et al. 2015, table 1; norms and the padding of the poolings as in the published networks
    Row(64, pooling=halve),
    Row(128, pooling=halve),
    Row(256, norm=True),
    Row(256, pooling=halve_height),
    Row(512, norm=True),
    Row(512, pooling=halve_height),
    Row(512, kernel=2, padding=0, norm=True),
)


class Crnn(nn.Module):
    """A convolution stack and a head.

    x: (N, in_channels, 32, W) → logits (N, ⌊W/4⌋ + 1, num_classes). Raises LightenError for another height, and for a
    width below 4.
    """

    def __init__(self, features: nn.Sequential, head: nn.Module):
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height != HEIGHT:
            raise LightenError(
                f"a CRNN reads lines of height {HEIGHT}, not {height}: of the multiples of 16, "
                f"only {HEIGHT} leaves one row of features"
            )
        if width < MIN_WIDTH:
            raise LightenError(f"a CRNN reads lines of width {MIN_WIDTH} at least, not {width}")
        return self.head(self.features(x).squeeze(2).transpose(1, 2))


def crnn(num_classes: int = 37, in_channels: int = 1, head: str = "bilstm", hidden: int = 256) -> Crnn:
    """The dense CRNN: 5,551,360 parameters in the convolutions, 2,779,941 in the head of 37 classes.

    num_classes: characters and the blank. in_channels: 1 for grey, 3 for colour. head: bilstm, gru or conv;
    hidden: its units in each direction, or its channels.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for row in ROWS:
        layers += [nn.Conv2d(channels, row.channels, row.kernel, 1, row.padding), *finish(row)]
        channels = row.channels
    return Crnn(nn.Sequential(*layers), make_head(head, channels, hidden, num_classes))


def crnn_separable(
    num_classes: int = 37,
    in_channels: int = 1,
    head: str = "bilstm",
    hidden: int = 256,
    dense_stem: bool = False,
    norm_between: bool = False,
) -> Crnn:
    """The depthwise-separable CRNN: 781,450 parameters in the convolutions; options as of `crnn`.

    dense_stem: the first convolution stays dense; depthwise on a grey line, all its maps are multiples of one filtered
    image. norm_between: norm and ReLU between depthwise and pointwise, as in MobileNet (Howard et al. 2017, figure 3).
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for row in ROWS:
        if dense_stem and row is ROWS[0]:
            layers.append(nn.Conv2d(channels, row.channels, row.kernel, 1, row.padding))
        else:
            layers.append(nn.Conv2d(channels, channels, row.kernel, 1, row.padding, groups=channels))
            layers += [nn.BatchNorm2d(channels), nn.ReLU()] if norm_between else []
            layers.append(nn.Conv2d(channels, row.channels, 1))
        layers += finish(row)
        channels = row.channels
    return Crnn(nn.Sequential(*layers), make_head(head, channels, hidden, num_classes))


def finish(row: Row) -> list[nn.Module]:
    """What follows a row's convolution."""
    layers: list[nn.Module] = [nn.BatchNorm2d(row.channels)] if row.norm else []
    layers.append(nn.ReLU())
    if row.pooling:
        layers.append(row.pooling())
    return layers
