"""MobileNet V1 (Howard et al. 2017), and the frame that its successors share with it."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.layers.conv_norm import ConvNorm
from lighten.layers.width import scaled


@dataclass(frozen=True, slots=True)
class Stage:
    """Depthwise separable layers of the same width, of which the first has the stride."""

    channels: int
    repeats: int
    stride: int


STAGES = (  # table 1; its last depthwise layer has stride 1, or the map would be 4×4 and not the 7×7 that is written
    Stage(channels=64, repeats=1, stride=1),
    Stage(channels=128, repeats=2, stride=2),
    Stage(channels=256, repeats=2, stride=2),
    Stage(channels=512, repeats=6, stride=2),
    Stage(channels=1024, repeats=2, stride=2),
)
ACTIVATIONS = {"relu6": nn.ReLU6, "relu": nn.ReLU}


class MobileNet(nn.Module):
    """Features, their mean over the map, a classifier.

    x: (N, in_channels, H, W) of any size that the strides leave a pixel of → logits (N, num_classes); a smaller one
    raises LightenError. The papers don't say how weights start: here as in the authors' code, convolution and linear
    from a normal distribution of deviation 0.09, cut at twice that, and biases at 0.
    published_names: what others call its layers, {their name: ours}, for `load_weights`.
    """

    def __init__(
        self, features: nn.Sequential, classifier: nn.Sequential, published_names: dict[str, str] | None = None
    ):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.published_names = published_names or {}
        self.total_stride = math.prod(m.stride[0] for m in features.modules() if isinstance(m, nn.Conv2d))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.09, a=-0.18, b=0.18)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < self.total_stride:
            stride = self.total_stride
            raise LightenError(
                f"an input of {height}×{width} is too small: the strides make {stride}, "
                f"so it must be {stride}×{stride} or more"
            )
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


def mobilenet_v1(
    alpha: float = 1.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.001,
    stem_stride: int = 2,
    activation: str = "relu6",
    norm: bool = True,
    pad_end: bool = False,
) -> MobileNet:
    """MobileNet V1: 4,231,976 parameters with the defaults, 568,740,352 MACs on 224×224.

    alpha: width multiplier. stem_stride: 1 for small images. activation: "relu6" as in the authors' code, or "relu" as
    in the paper. norm: False where the norms are folded into the convolutions, which then have biases.
    pad_end: at stride 2 pad right and bottom only, as weights from TensorFlow need it.
    Raises LightenError for an alpha that leaves no channels and for an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise LightenError(f"there is no activation '{activation}'; there are {', '.join(ACTIVATIONS)}")

    def layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> ConvNorm:
        norm_layer = nn.BatchNorm2d if norm else None
        return ConvNorm(inputs, outputs, kernel, stride, groups, norm_layer, ACTIVATIONS[activation], pad_end)

    width = scaled(32, alpha)
    features: list[nn.Module] = [layer(in_channels, width, 3, stem_stride)]
    for stage in STAGES:
        for index in range(stage.repeats):
            depthwise = layer(width, width, 3, stage.stride if index == 0 else 1, groups=width)
            pointwise = layer(width, scaled(stage.channels, alpha), 1)
            width = scaled(stage.channels, alpha)
            features.append(nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise)))
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))
    return MobileNet(nn.Sequential(*features), classifier, timm_names())


def timm_names() -> dict[str, str]:
    """What timm calls the layers: its files are sorted by name, so that their order tells nothing."""
    names = {"conv_stem": "features.0.conv", "bn1": "features.0.norm", "classifier": "classifier.1"}
    blocks = [f"blocks.{stage}.{index}" for stage, row in enumerate(STAGES) for index in range(row.repeats)]
    for number, block in enumerate(blocks, start=1):
        names[f"{block}.conv_dw"] = f"features.{number}.depthwise.conv"
        names[f"{block}.bn1"] = f"features.{number}.depthwise.norm"
        names[f"{block}.conv_pw"] = f"features.{number}.pointwise.conv"
        names[f"{block}.bn2"] = f"features.{number}.pointwise.norm"
    return names
