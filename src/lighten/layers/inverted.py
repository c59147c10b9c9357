"""Blocks that are wide inside and thin at both ends: MobileNet V2's, V3's and V4's."""

from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.layers.conv_norm import Activation, ConvNorm, Norm
from lighten.layers.squeeze_excite import SqueezeExcite
from lighten.layers.width import divisible


class Bottleneck(nn.Module):
    """Its children one after the other; the input is added where the block keeps its shape.

    x: (N, in_channels, H, W) → (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y if self.has_shortcut else y


class InvertedResidual(Bottleneck):
    """Inverted residual with a linear bottleneck: 1×1 up to `hidden`, depthwise, 1×1 down without an activation.

    No 1×1 in front where `hidden` equals in_channels. squeeze_excite: gates after the depthwise convolution, with a
    quarter of the hidden channels between. Sandler et al. 2018, table 1; Howard et al. 2019, figure 4.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        squeeze_excite: bool = False,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = nn.ReLU6,
    ):
        super().__init__(in_channels, out_channels, stride)
        if hidden != in_channels:
            self.expand = ConvNorm(in_channels, hidden, 1, norm=norm, activation=activation)
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden, norm=norm, activation=activation)
        if squeeze_excite:
            self.squeeze_excite = SqueezeExcite(hidden, divisible(hidden // 4))
        self.project = ConvNorm(hidden, out_channels, 1, norm=norm, activation=None)


class UniversalInvertedBottleneck(Bottleneck):
    """MobileNet V4's block: an inverted bottleneck whose depthwise convolutions are both optional.

    | start_kernel | kernel | the block is |
    | --- | --- | --- |
    | 0 | k | an inverted bottleneck |
    | k | 0 | like ConvNeXt's: the depthwise convolution first, on few channels |
    | k | k | with an extra depthwise convolution |
    | 0 | 0 | a feed-forward network: pointwise only |

    The first depthwise convolution has a norm and no activation; the one in the middle, where there is one, has the
    stride. expand: hidden channels per input channel, made a multiple of 8. Raises LightenError for a stride without a
    depthwise convolution. Qin et al. 2024, section 4 and figure 4; without their layer scale.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expand: float = 4.0,
        start_kernel: int = 0,
        kernel: int = 3,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = nn.ReLU,
    ):
        super().__init__(in_channels, out_channels, stride)
        if stride != 1 and not (start_kernel or kernel):
            raise LightenError(f"a block without a depthwise convolution can't have stride {stride}, only 1")
        hidden = divisible(expand * in_channels)
        if start_kernel:
            start_stride = 1 if kernel else stride
            self.start = ConvNorm(
                in_channels, in_channels, start_kernel, start_stride, groups=in_channels, norm=norm, activation=None
            )
        self.expand = ConvNorm(in_channels, hidden, 1, norm=norm, activation=activation)
        if kernel:
            self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden, norm=norm, activation=activation)
        self.project = ConvNorm(hidden, out_channels, 1, norm=norm, activation=None)
