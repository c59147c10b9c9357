"""The convolution that networks repeat: with its norm and its activation."""

from collections.abc import Callable

from torch import nn

from lighten.errors import LightenError

Norm = Callable[[int], nn.Module]
Activation = Callable[[], nn.Module]
Pair = int | tuple[int, int]  # of (height, width), or one number for both


class ConvNorm(nn.Sequential):
    """A 2-D convolution that keeps the size at stride 1, then norm, then activation; each of the two may be None.

    x: (N, in_channels, H, W) → (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉). Where the zeros to add are odd in number, a
    layer `pad` adds one more at the right or bottom. bias: None for one where no norm follows.
    pad_end: at stride 2 zeros are added at the right and at the bottom only, as TensorFlow's "SAME" padding does on
    even sizes; networks trained there are shifted by a pixel otherwise. An odd size loses its last pixel.
    Raises LightenError for numbers below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Pair = 3,
        stride: Pair = 1,
        groups: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
        pad_end: bool = False,
        *,
        dilation: int = 1,
        bias: bool | None = None,
    ):
        super().__init__()
        window, strides = pair(kernel), pair(stride)
        if min(in_channels, out_channels, *window, *strides, dilation) < 1:
            given = f"{in_channels} to {out_channels} channels, kernel {window}, stride {strides}, dilation {dilation}"
            raise LightenError(f"a convolution needs numbers of at least 1, not {given}")
        (top, bottom), (left, right) = (
            zeros(taps, step, dilation, pad_end) for taps, step in zip(window, strides, strict=True)
        )
        padding = (top, left)
        if (top, left) != (bottom, right):
            self.pad = nn.ZeroPad2d((left, right, top, bottom))
            padding = (0, 0)
        has_bias = norm is None if bias is None else bias
        self.conv = nn.Conv2d(in_channels, out_channels, window, strides, padding, dilation, groups, has_bias)
        if norm is not None:
            self.norm = norm(out_channels)
        if activation is not None:
            self.activation = activation()


def pair(value: Pair) -> tuple[int, int]:
    """(height, width)."""
    return (value, value) if isinstance(value, int) else value


def zeros(taps: int, stride: int, dilation: int, pad_end: bool) -> tuple[int, int]:
    """How many zeros go before and after along an axis."""
    total = dilation * (taps - 1) - (1 if pad_end and stride == 2 and taps > 1 else 0)
    return total // 2, total - total // 2
