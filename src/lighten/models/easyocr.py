"""EasyOCR's recogniser of English text, `english_g2` (EasyOCR 1.3, `vgg_model.py`), for its own trained weights.

Classes are CTC's blank and the 96 characters of `lighten.data.lines.FORMATS["easyocr_english_g2"]`, which also says
how lines are prepared. The names of the modules are those of the weights.
"""

from collections import OrderedDict

from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.models.sequence import Recurrent

MIN_HEIGHT, MIN_WIDTH = 32, 8


class EnglishG2(nn.Module):
    """VGG-like features, their mean over the height, two bidirectional LSTMs with linear layers, a linear layer.

    x: (N, 1, H, W), H = 64 as trained → logits (N, ⌊W/4⌋ - 1, num_classes). Raises LightenError for a height below 32
    or a width below 8.
    """

    def __init__(self, num_classes: int = 97):
        super().__init__()
        self.FeatureExtraction = nn.Sequential(OrderedDict(ConvNet=features()))
        self.SequenceModeling = nn.Sequential(Recurrent(nn.LSTM, 256, 256, 256), Recurrent(nn.LSTM, 256, 256, 256))
        self.Prediction = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height < MIN_HEIGHT or width < MIN_WIDTH:
            raise LightenError(
                f"english_g2 reads lines of {MIN_HEIGHT}×{MIN_WIDTH} pixels (height × width) at least, "
                f"not {height}×{width}"
            )
        columns = self.FeatureExtraction(x).mean(2).transpose(1, 2)
        return self.Prediction(self.SequenceModeling(columns))


def features() -> nn.Sequential:
    """(N, 1, H, W) → (N, 256, ⌊H/16⌋ - 1, ⌊W/4⌋ - 1); the last two poolings halve the height alone."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(128, 128, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1))),
        *(nn.Conv2d(128, 256, 3, 1, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, 1, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.MaxPool2d((2, 1))),
        *(nn.Conv2d(256, 256, 2), nn.ReLU()),
    )


def easyocr_english_g2(num_classes: int = 97) -> EnglishG2:
    """The network as published: 3,781,345 parameters."""
    return EnglishG2(num_classes)
