"""scikit-learn's handwritten digits as `digits`: 1,797 grey images that come with the library."""

import torch
import torch.nn.functional as F

from lighten.data.batches import Batches, Data, split_held_out

MEAN, STD = (0.3053,), (0.3186,)
NUM_TEST, TEST_SEED = 360, 0


def load_digits(batch_size: int = 64, num_held_out: int = 300, num_calibration: int = 512, seed: int = 0) -> Data:
    """Digits of 16×16 pixels, enlarged from 8×8 so that convolutions have something to do; normalised.

    The 360 test images are always the same; `seed` chooses which of the other 1,437 are held out.
    """
    images, labels = read_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(TEST_SEED))
    everything = Batches(images, labels, MEAN, STD, batch_size=batch_size, shuffle=True)
    test = Batches(images[order[:NUM_TEST]], labels[order[:NUM_TEST]], MEAN, STD, batch_size=256)
    slices = split_held_out(everything.take(order[NUM_TEST:]), num_held_out, num_calibration, seed)
    return Data("digits", *slices, test, 10)


def read_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 1, 16, 16) uint8 and labels (1797,)."""
    from sklearn import datasets

    stored = datasets.load_digits()
    grey = torch.from_numpy(stored.images).float()[:, None] / 16
    enlarged = F.interpolate(grey, scale_factor=2, mode="bilinear", align_corners=False)
    return (255 * enlarged).round().to(torch.uint8), torch.from_numpy(stored.target).long()
