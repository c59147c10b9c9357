"""VGG-16 with batch norm (Simonyan & Zisserman 2015, table 1, column D), for 32×32 images.

The usual form for CIFAR (Li et al. 2017, section 4.1: 1.5·10⁷ parameters, 3.13·10⁸ MACs) has one linear layer where the
original for 224×224 has three. Convolutions keep their biases, so that the features have torchvision's names.
"""

from torch import Tensor, nn

from lighten.errors import LightenError

STAGES = (  # channels of the convolutions between poolings
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)
MIN_SIZE = 32


class Vgg(nn.Module):
    """Thirteen 3×3 convolutions with norm, five poolings, the mean over what is left of the image, a linear layer.

    x: (N, in_channels, H, W), 32×32 as usual → logits (N, num_classes). Raises LightenError for a smaller image.
    """

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for stage in STAGES:
            for channels in stage:
                layers += [nn.Conv2d(in_channels, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU()]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, equation 14
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < MIN_SIZE:
            raise LightenError(f"VGG-16 halves images five times and needs 32×32 pixels at least, not {height}×{width}")
        return self.classifier(self.features(x).mean((2, 3)))


def vgg16_bn(num_classes: int = 10, in_channels: int = 3) -> Vgg:
    """VGG-16-BN: 14,728,266 parameters with 10 classes."""
    return Vgg(num_classes, in_channels)
