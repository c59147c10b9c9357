"""Folders of images with a subfolder per class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lighten.data import load_data
from lighten.data.image_folder import NORMS, image_view
from lighten.errors import LightenError


def write(folder: Path, num_images: int, classes: tuple[str, ...] = ("cat", "dog"), first: int = 0) -> None:
    """Grey images whose brightness is their number."""
    for position, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(num_images):
            shade = first + position * num_images + n
            Image.new("RGB", (40, 30), (shade,) * 3).save(folder / name / f"{n}.png")


def load(folder: Path, **options):
    return load_data(f"images:{folder}:norm=half,num_workers=0,size=16", **options)


def shades(loader) -> set[int]:
    return {round(float(x.mean() + 1) * 127.5) for inputs, _ in loader for x in inputs}


def test_folder_without_parts_is_split(tmp_path):
    write(tmp_path, 15)
    data = load(tmp_path, batch_size=1)
    parts = [shades(loader) for loader in (data.train, data.held_out, data.test)]
    assert [len(part) for part in parts] == [25, 2, 3]
    assert set.union(*parts) == set(range(30))
    assert shades(data.calibration) == parts[0]
    assert shades(load(tmp_path, seed=5).test) == parts[2]
    assert data.num_classes == 2


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_one_more(tmp_path, name):
    write(tmp_path / "train", 10)
    write(tmp_path / name, 3, first=100)
    data = load(tmp_path, batch_size=1)
    assert shades(data.test) == set(range(100, 106))
    assert shades(data.train) | shades(data.held_out) == set(range(20))
    assert not shades(data.train) & shades(data.held_out)


def test_val_is_held_out_beside_test(tmp_path):
    write(tmp_path / "train", 5)
    write(tmp_path / "val", 2, first=100)
    write(tmp_path / "test", 2, first=200)
    data = load(tmp_path, batch_size=1)
    assert shades(data.held_out) == set(range(100, 104))
    assert shades(data.test) == set(range(200, 204))
    assert shades(data.train) == set(range(10))


def test_train_alone_has_no_test(tmp_path):
    write(tmp_path / "train", 5)
    assert load(tmp_path).test is None


def test_views(tmp_path):
    """Only training images are cropped at random."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for n in range(4):
            Image.fromarray(noise).save(tmp_path / "train" / name / f"{n}.png")
    data = load_data(f"images:{tmp_path}:size=32,num_workers=0,batch_size=2")
    (train, _), (plain, labels) = next(iter(data.train)), next(iter(data.calibration))
    assert train.shape == plain.shape == (2, 3, 32, 32)
    assert type(plain) is torch.Tensor
    assert labels.dtype == torch.int64
    assert torch.equal(plain[0], plain[1])
    assert not torch.equal(train[0], train[1])


def test_plain_view_normalises():
    white = Image.new("RGB", (50, 40), (255, 255, 255))
    mean, std = (torch.tensor(v) for v in NORMS["imagenet"])
    torch.testing.assert_close(image_view(24, "imagenet", augmented=False)(white)[:, 5, 5], (1 - mean) / std)


def test_workers_read_the_same(tmp_path):
    write(tmp_path, 5)
    assert shades(load(tmp_path, num_workers=1).calibration) == shades(load(tmp_path).calibration)


def test_workers_are_the_cores(tmp_path):
    write(tmp_path, 5)
    assert load_data(f"images:{tmp_path}").train.num_workers in range(1, 5)


def test_classes_that_differ(tmp_path):
    write(tmp_path / "train", 3)
    write(tmp_path / "test", 3, classes=("cat", "cow"))
    with pytest.raises(LightenError, match=r"the classes of '.*train' and '.*test' differ in 2: cow, dog"):
        load(tmp_path)


def test_folder_without_images(tmp_path):
    with pytest.raises(LightenError, match="is not a folder with a subfolder of images for each class: "):
        load(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(LightenError, match="is not a folder with a subfolder of images for each class: "):
        load(tmp_path)


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(LightenError, match="is not a folder with a subfolder"):
        load(tmp_path / "x.png")


def test_unknown_norm(tmp_path):
    with pytest.raises(LightenError, match="there is no norm 'none'; there are imagenet, half"):
        load(tmp_path, norm="none")
