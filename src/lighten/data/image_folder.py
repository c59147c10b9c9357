"""A folder of images with one subfolder per class, as `images:PATH`.

torchvision is imported where it is needed: it takes as long as torch itself, and every command would wait for it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from lighten.data.batches import Data
from lighten.data.split import Source, split_indices
from lighten.errors import LightenError

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

View = Callable[[Image.Image], Tensor]

NORMS = {  # mean, standard deviation
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # pixels from -1 to 1
}
MIN_AREA = 0.35  # of a random crop: a short recovery learns less from smaller ones


def load_image_folder(
    path: str,
    size: int = 224,
    norm: str = "imagenet",
    batch_size: int = 64,
    num_workers: int = -1,
    num_calibration: int = 1024,
    seed: int = 0,
) -> Data:
    """Images from `path/CLASS/`, or from `path/train/CLASS/` with `test/` or `val/` beside it.

    With all three, `val/` is held out. What isn't there is split off: a tenth (5,000 at most) of the training images
    is held out, and where there is no `train/`, as many are the test. size: of the square input, in pixels.
    num_workers: processes that read images; -1 for one per core, 4 at most. Raises LightenError where folders hold no
    images, or their classes differ.
    """
    if norm not in NORMS:
        raise LightenError(f"there is no norm '{norm}'; there are {', '.join(NORMS)}")
    folder = Path(path)
    workers = min(4, os.cpu_count() or 1) if num_workers < 0 else num_workers

    def source(part: Path, augmented: bool = False) -> Source:
        dataset = open_folder(part, image_view(size, norm, augmented))
        return Source(dataset, batch_size, workers)

    root = folder / "train" if (folder / "train").is_dir() else folder
    others = [source(folder / n) for n in ("val", "test") if root != folder and (folder / n).is_dir()]
    train, plain = source(root, augmented=True), source(root)
    for other in others:
        check_classes(plain.dataset, other.dataset)
    chosen = torch.arange(len(plain.dataset))
    test = others[-1].loader() if others else None
    if root == folder:
        chosen, _, test_indices = split_indices(len(chosen), None, 0, seed=0)  # the same whatever the seed
        test = plain.loader(test_indices)
    held_out = others[0].loader() if len(others) == 2 else None
    parts = split_indices(len(chosen), None if held_out is None else 0, num_calibration, seed)
    training, calibration, rest = (chosen[part] for part in parts)
    return Data(
        f"images:{path}",
        train.loader(training, shuffle=True),
        plain.loader(calibration),
        held_out or plain.loader(rest),
        test,
        len(plain.dataset.classes),
    )


def open_folder(folder: Path, view: View) -> "ImageFolder":
    """The images under `folder/CLASS/`; raises LightenError where there are none."""
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(folder), view)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LightenError(f"'{folder}' is not a folder with a subfolder of images for each class: {error}") from error


def check_classes(train: "ImageFolder", other: "ImageFolder") -> None:
    """Raise LightenError unless both folders have the same classes: labels are positions in that list."""
    differing = set(train.classes) ^ set(other.classes)
    if differing:
        some = ", ".join(sorted(differing)[:3])
        raise LightenError(f"the classes of '{train.root}' and '{other.root}' differ in {len(differing)}: {some}")


def image_view(size: int, norm: str, augmented: bool) -> View:
    """From an image to a normalised tensor (3, size, size).

    augmented: a random crop, flipped at random; else the centre, once the shorter side is at size / 0.875.
    """
    from torchvision.transforms import v2

    random = (v2.RandomResizedCrop(size, scale=(MIN_AREA, 1.0), antialias=True), v2.RandomHorizontalFlip())
    centre = (v2.Resize(round(size / 0.875), antialias=True), v2.CenterCrop(size))
    mean, std = NORMS[norm]
    scaled = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std)))
    view: View = v2.Compose([v2.ToImage(), *(random if augmented else centre), *scaled, v2.ToPureTensor()])
    return view
