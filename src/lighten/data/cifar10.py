"""CIFAR-10 from WebP sheets or from the original Python batches' folder, as `cifar10:PATH`."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lighten.data.batches import Batches, Data, crop_and_flip, split_held_out
from lighten.errors import LightenError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 32


def load_cifar10(path: str, num_held_out: int = 5000, num_calibration: int = 2048) -> Data:
    """CIFAR-10, of whose 50,000 training images `num_held_out` are kept apart.

    path: a folder with `index.json` and WebP sheets of 32×32 tiles, or with torchvision's `cifar-10-batches-py`.
    Pixels are normalised with the ImageNet mean and standard deviation, as the published ResNets expect.
    """
    folder = Path(path)
    read = read_sheets if (folder / "index.json").exists() else read_torchvision
    train = Batches(*read(folder, "train"), IMAGENET_MEAN, IMAGENET_STD, shuffle=True, augment=crop_and_flip(4))
    test = Batches(*read(folder, "test"), IMAGENET_MEAN, IMAGENET_STD, batch_size=500)
    training, calibration, held_out = split_held_out(train, num_held_out, num_calibration)
    return Data(f"cifar10:{path}", training, calibration, held_out, test, len(CLASSES))


def read_sheets(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) of one split."""
    images, labels = [], []
    for name, sheet in json.loads((folder / "index.json").read_text()).items():
        if not name.startswith(f"{split}/"):
            continue
        try:
            pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        except OSError as error:
            raise LightenError(f"cannot read the CIFAR-10 sheet '{folder / name}': {error}") from error
        tiles = pixels.reshape(sheet["rows"], SIZE, -1, SIZE, 3).transpose(0, 2, 4, 1, 3)
        images.append(torch.from_numpy(tiles.reshape(-1, 3, SIZE, SIZE)[: sheet["n"]].copy()))
        labels.append(torch.full((sheet["n"],), CLASSES.index(sheet["cls"])))
    if not images:
        raise LightenError(f"'{folder}/index.json' names no sheet of the split '{split}'")
    return torch.cat(images), torch.cat(labels)


def read_torchvision(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from the folder that torchvision's CIFAR10 leaves behind."""
    from torchvision.datasets import CIFAR10

    try:
        stored = CIFAR10(str(folder), train=split == "train", download=False)
    except RuntimeError as error:
        raise LightenError(
            f"no CIFAR-10 in '{folder}': neither index.json with sheets nor cifar-10-batches-py"
        ) from error
    return torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(stored.targets)
