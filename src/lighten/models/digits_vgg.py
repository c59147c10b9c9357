"""A small network in the style of VGG (Simonyan & Zisserman 2015) for 16×16 digits: what the demonstration lightens.

Four dense 3×3 convolutions do most of its work, and a fully connected head holds two fifths of its parameters.
"""

from torch import Tensor, nn


class DigitsVgg(nn.Module):
    """Five 3×3 convolutions with batch norm, two poolings, two dense layers.

    x: (N, 1, 16, 16) → logits (N, num_classes). width: channels of the first two convolutions, then twice as many.
    """

    def __init__(self, num_classes: int = 10, width: int = 32):
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, width),
            *convolution(width, width),
            nn.MaxPool2d(2),
            *convolution(width, 2 * width),
            *convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            *convolution(2 * width, 2 * width),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * 4 * 4, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 3×3 convolution that keeps the size, its batch norm and its ReLU."""
    return nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()


def digits_vgg(num_classes: int = 10, width: int = 32) -> DigitsVgg:
    """The network as the demonstration uses it: 168,426 parameters."""
    return DigitsVgg(num_classes, width)
