"""ResNet-20/32/44/56 for 32×32 images (He et al. 2016, section 4.2), shortcuts of option A."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.errors import LightenError


class PadShortcut(nn.Module):
    """Every second pixel, with zero channels added in equal parts on both sides (option A: no parameters).

    x: (N, C, H, W) → (N, C + 2·num_padded, ⌈H/2⌉, ⌈W/2⌉).
    """

    def __init__(self, num_padded: int):
        super().__init__()
        self.num_padded = num_padded

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.num_padded, self.num_padded))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = PadShortcut((out_channels - in_channels) // 2) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """Three stages of `width`, 2·width and 4·width channels; depth = 6·blocks_per_stage + 2.

    x: (N, 3, H, W), 32×32 as trained → logits (N, num_classes). Raises LightenError for an odd width, which the
    shortcuts can't pad equally on both sides.
    """

    def __init__(self, blocks_per_stage: int, num_classes: int = 10, width: int = 16):
        super().__init__()
        if width < 2 or width % 2:
            raise LightenError(f"a ResNet for CIFAR needs an even width of at least 2, not {width}")
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, blocks_per_stage, stride=1)
        self.layer2 = stage(width, 2 * width, blocks_per_stage, stride=2)
        self.layer3 = stage(2 * width, 4 * width, blocks_per_stage, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def stage(in_channels: int, out_channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    """`num_blocks` basic blocks, of which the first changes channels and resolution."""
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(num_blocks - 1)))


def resnet20(num_classes: int = 10, width: int = 16) -> ResNetCifar:
    """ResNet-20: 269,722 parameters with 10 classes (option A shortcuts have none)."""
    return ResNetCifar(3, num_classes, width)


def resnet32(num_classes: int = 10, width: int = 16) -> ResNetCifar:
    """ResNet-32."""
    return ResNetCifar(5, num_classes, width)


def resnet44(num_classes: int = 10, width: int = 16) -> ResNetCifar:
    """ResNet-44."""
    return ResNetCifar(7, num_classes, width)


def resnet56(num_classes: int = 10, width: int = 16) -> ResNetCifar:
    """ResNet-56."""
    return ResNetCifar(9, num_classes, width)
