"""CIFAR-10 from sheets."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lighten.data.cifar10 import CLASSES, load_cifar10, read_sheets
from lighten.errors import LightenError


def write_sheet(folder, split: str, cls: str, num_images: int, first: int) -> tuple[str, dict]:
    """A lossless sheet of 2×2 tiles, tile n of the shade first + n."""
    (folder / split).mkdir(exist_ok=True)
    tiles = np.repeat(np.arange(first, first + 4, dtype=np.uint8), 32 * 32 * 3).reshape(2, 2, 32, 32, 3)
    name = f"{split}/{cls}.webp"
    Image.fromarray(tiles.transpose(0, 2, 1, 3, 4).reshape(64, 64, 3)).save(folder / name, lossless=True)
    return name, {"rows": 2, "cols": 2, "cls": cls, "n": num_images}


@pytest.fixture
def sheets(tmp_path):
    entries = [write_sheet(tmp_path, "train", "cat", 3, 10), write_sheet(tmp_path, "train", "dog", 4, 20)]
    entries.append(write_sheet(tmp_path, "test", "ship", 2, 30))
    (tmp_path / "index.json").write_text(json.dumps(dict(entries)))
    return tmp_path


def test_sheets(sheets):
    images, labels = read_sheets(sheets, "train")
    assert images[:, 1, 5, 7].tolist() == [10, 11, 12, 20, 21, 22, 23]
    assert (images == images[:, :1, :1, :1]).all()
    assert [CLASSES[n] for n in labels] == ["cat"] * 3 + ["dog"] * 4


def test_slices(sheets):
    data = load_cifar10(str(sheets), num_held_out=2, num_calibration=3)
    sizes = [len(part.images) for part in (data.train, data.calibration, data.held_out, data.test)]
    assert sizes == [5, 3, 2, 2]
    assert data.train.augment is not None
    assert data.calibration.augment is None
    inputs, labels = next(iter(data.test))
    assert labels.tolist() == [8, 8]
    torch.testing.assert_close(
        inputs[0, :, 0, 0],
        (torch.tensor(30 / 255) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]),
    )


def test_broken_sheet(sheets):
    (sheets / "test" / "ship.webp").write_bytes(b"RIFF")
    with pytest.raises(LightenError, match="cannot read the CIFAR-10 sheet '.*ship.webp'"):
        load_cifar10(str(sheets), 2)


def test_index_without_a_split(sheets):
    (sheets / "index.json").write_text("{}")
    with pytest.raises(LightenError, match="names no sheet of the split 'train'"):
        load_cifar10(str(sheets), 2)
