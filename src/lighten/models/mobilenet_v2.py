"""MobileNet V2: inverted residuals with linear bottlenecks (Sandler et al. 2018)."""

from dataclasses import dataclass

from torch import nn

from lighten.layers.conv_norm import ConvNorm
from lighten.layers.inverted import InvertedResidual
from lighten.layers.width import scaled
from lighten.models.mobilenet_v1 import MobileNet


@dataclass(frozen=True, slots=True)
class Stage:
    """Inverted residuals of the same width, of which the first has the stride; expand: hidden per input channel."""

    expand: int
    channels: int
    repeats: int
    stride: int


STAGES = (  # table 2
    Stage(expand=1, channels=16, repeats=1, stride=1),
    Stage(expand=6, channels=24, repeats=2, stride=2),
    Stage(expand=6, channels=32, repeats=3, stride=2),
    Stage(expand=6, channels=64, repeats=4, stride=2),
    Stage(expand=6, channels=96, repeats=3, stride=1),
    Stage(expand=6, channels=160, repeats=3, stride=2),
    Stage(expand=6, channels=320, repeats=1, stride=1),
)


def mobilenet_v2(
    alpha: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stem_stride: int = 2
) -> MobileNet:
    """MobileNet V2: 3,504,872 parameters with the defaults, 300,774,272 MACs on 224×224.

    alpha: width multiplier; below 1 the last convolution keeps its 1280 channels (section 4). stem_stride: 1 for
    small images. Raises LightenError for an alpha that leaves no channels.
    """
    width = scaled(32, alpha)
    features: list[nn.Module] = [ConvNorm(in_channels, width, 3, stem_stride, activation=nn.ReLU6)]
    for stage in STAGES:
        channels = scaled(stage.channels, alpha)
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            features.append(InvertedResidual(width, stage.expand * width, channels, stride=stride))
            width = channels
    last = scaled(1280, max(1.0, alpha))
    features.append(ConvNorm(width, last, 1, activation=nn.ReLU6))
    return MobileNet(nn.Sequential(*features), nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes)))
