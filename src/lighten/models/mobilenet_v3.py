"""MobileNet V3, Large and Small: searched inverted residuals, some with squeeze-excite (Howard et al. 2019)."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from lighten.layers.conv_norm import Activation, ConvNorm
from lighten.layers.inverted import InvertedResidual
from lighten.layers.width import scaled
from lighten.models.mobilenet_v1 import MobileNet


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual; hidden: channels of its depthwise convolution."""

    kernel: int
    hidden: int
    channels: int
    squeeze_excite: bool
    activation: Activation
    stride: int


RE, HS = nn.ReLU, nn.Hardswish  # as the tables abbreviate them

LARGE = (  # table 1
    Block(kernel=3, hidden=16, channels=16, squeeze_excite=False, activation=RE, stride=1),
    Block(kernel=3, hidden=64, channels=24, squeeze_excite=False, activation=RE, stride=2),
    Block(kernel=3, hidden=72, channels=24, squeeze_excite=False, activation=RE, stride=1),
    Block(kernel=5, hidden=72, channels=40, squeeze_excite=True, activation=RE, stride=2),
    Block(kernel=5, hidden=120, channels=40, squeeze_excite=True, activation=RE, stride=1),
    Block(kernel=5, hidden=120, channels=40, squeeze_excite=True, activation=RE, stride=1),
    Block(kernel=3, hidden=240, channels=80, squeeze_excite=False, activation=HS, stride=2),
    Block(kernel=3, hidden=200, channels=80, squeeze_excite=False, activation=HS, stride=1),
    Block(kernel=3, hidden=184, channels=80, squeeze_excite=False, activation=HS, stride=1),
    Block(kernel=3, hidden=184, channels=80, squeeze_excite=False, activation=HS, stride=1),
    Block(kernel=3, hidden=480, channels=112, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=3, hidden=672, channels=112, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=672, channels=160, squeeze_excite=True, activation=HS, stride=2),
    Block(kernel=5, hidden=960, channels=160, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=960, channels=160, squeeze_excite=True, activation=HS, stride=1),
)
SMALL = (  # table 2
    Block(kernel=3, hidden=16, channels=16, squeeze_excite=True, activation=RE, stride=2),
    Block(kernel=3, hidden=72, channels=24, squeeze_excite=False, activation=RE, stride=2),
    Block(kernel=3, hidden=88, channels=24, squeeze_excite=False, activation=RE, stride=1),
    Block(kernel=5, hidden=96, channels=40, squeeze_excite=True, activation=HS, stride=2),
    Block(kernel=5, hidden=240, channels=40, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=240, channels=40, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=120, channels=48, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=144, channels=48, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=288, channels=96, squeeze_excite=True, activation=HS, stride=2),
    Block(kernel=5, hidden=576, channels=96, squeeze_excite=True, activation=HS, stride=1),
    Block(kernel=5, hidden=576, channels=96, squeeze_excite=True, activation=HS, stride=1),
)
NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)  # average decay 0.99: section 6.1.1


def mobilenet_v3_large(
    alpha: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stem_stride: int = 2
) -> MobileNet:
    """MobileNet V3-Large: 5,483,032 parameters with the defaults, 216,589,760 MACs on 224×224.

    alpha: width multiplier. stem_stride: 1 for small images. Raises LightenError for an alpha that leaves no channels.
    """
    return mobilenet_v3(LARGE, scaled(1280, alpha), alpha, num_classes, in_channels, dropout, stem_stride)


def mobilenet_v3_small(
    alpha: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stem_stride: int = 2
) -> MobileNet:
    """MobileNet V3-Small: 2,542,856 parameters with the defaults, 56,510,400 MACs on 224×224.

    alpha: width multiplier. stem_stride: 1 for small images. Raises LightenError for an alpha that leaves no channels.
    """
    return mobilenet_v3(SMALL, scaled(1024, alpha), alpha, num_classes, in_channels, dropout, stem_stride)


def mobilenet_v3(
    blocks: tuple[Block, ...],
    last: int,
    alpha: float,
    num_classes: int,
    in_channels: int,
    dropout: float,
    stem_stride: int,
) -> MobileNet:
    """The network of a table; last: width of the linear layer before the classes."""
    width = scaled(16, alpha)
    features: list[nn.Module] = [ConvNorm(in_channels, width, 3, stem_stride, norm=NORM, activation=HS)]
    for block in blocks:
        channels = scaled(block.channels, alpha)
        features.append(
            InvertedResidual(
                width,
                scaled(block.hidden, alpha),
                channels,
                block.kernel,
                block.stride,
                block.squeeze_excite,
                NORM,
                block.activation,
            )
        )
        width = channels
    features.append(ConvNorm(width, 6 * width, 1, norm=NORM, activation=HS))
    classifier = nn.Sequential(nn.Linear(6 * width, last), HS(), nn.Dropout(dropout), nn.Linear(last, num_classes))
    return MobileNet(nn.Sequential(*features), classifier)
