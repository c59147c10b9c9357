"""Batches of images held in memory, and the three slices of data that a lightening job works with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lighten.errors import LightenError

Loader = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Data:
    """What a job may look at, and when.

    train: batches (inputs, labels) for recovery, augmented as the recipe likes.
    calibration: the same kind of batches, not augmented, for moments and repair.
    held_out: a slice of the *training* data that recovery never sees: plans and epochs are chosen on it.
    test: looked at once, at the end; None where there is none.
    metric: `top1`, or `word_accuracy` of text lines, whose classes 1, 2, … are the characters of the alphabet.
    """

    name: str
    train: Loader
    calibration: Loader
    held_out: Loader
    test: Loader | None
    num_classes: int
    metric: str = "top1"
    alphabet: str | None = None

    def check_logits(self, logits: Tensor) -> None:
        """Raise LightenError unless they are what a network for these data gives."""
        reads_text = self.metric == "word_accuracy"
        if logits.ndim != (3 if reads_text else 2):
            needed = "(batch, steps, classes)" if reads_text else "(batch, classes)"
            raise LightenError(f"the model gives outputs of shape {tuple(logits.shape)}; needed is {needed}")
        if logits.shape[-1] != self.num_classes:
            raise LightenError(
                f"the model has {logits.shape[-1]} classes and the data '{self.name}' have {self.num_classes}"
            )


@dataclass(frozen=True, eq=False)
class Batches:
    """Images in memory, normalised batch by batch; iterating draws from torch's global random state.

    images: (N, C, H, W), uint8; labels: (N,), int64; mean, std: per channel, of pixels scaled to 0…1.
    Augmentation is vectorised over the batch, since a transform per image costs more than a small network's step.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    shuffle: bool = False
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        step = self.batch_size
        return len(self.images) // step if self.shuffle else -(-len(self.images) // step)

    def __iter__(self):
        num_images = len(self.images)
        order = torch.randperm(num_images) if self.shuffle else torch.arange(num_images)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            pixels = self.images[chosen].float().div_(255).sub_(mean).div_(std)
            yield (self.augment(pixels) if self.augment else pixels), self.labels[chosen]

    def take(self, chosen: Tensor) -> "Batches":
        """The same batches over the images with these indices."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def split_held_out(
    batches: Batches, num_held_out: int, num_calibration: int, seed: int = 0
) -> tuple[Batches, Batches, Batches]:
    """Training, calibration and held-out batches; calibration images are training images, held-out ones are not."""
    order = torch.randperm(len(batches.images), generator=torch.Generator().manual_seed(seed))
    plain = replace(batches, shuffle=False, augment=None, batch_size=256)
    training = order[num_held_out:]
    return batches.take(training), plain.take(training[:num_calibration]), plain.take(order[:num_held_out])


def crop_and_flip(padding: int) -> Callable[[Tensor], Tensor]:
    """Random crop out of `padding` zero pixels on each side and a random horizontal flip, one draw per image."""

    def augment(images: Tensor) -> Tensor:
        num_images, channels, height, width = images.shape
        padded = F.pad(images, (padding,) * 4)
        top, left = torch.randint(0, 2 * padding + 1, (2, num_images, 1))
        rows = top + torch.arange(height)
        columns = left + torch.arange(width)
        flipped = torch.rand(num_images, 1) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
        image, channel = torch.arange(num_images), torch.arange(channels)
        return padded[
            image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]

    return augment
