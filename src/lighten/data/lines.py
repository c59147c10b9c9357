"""Lines of text as `lines:PATH`: a zip file or a folder with images and `labels.tsv` (file TAB label in each row).

Lines are held in memory as prepared for one kind of network, and batched with lines of similar width.
"""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lighten.data.batches import Data
from lighten.data.split import split_indices
from lighten.errors import LightenError
from lighten.references import first_line

LABELS = "labels.tsv"
BUCKET = 16  # pixels: widths within one count as the same when lines are shuffled
DIGITS, CAPITALS = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SMALLS, SIGNS = CAPITALS.lower(), "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €"


@dataclass(frozen=True, slots=True)
class LineFormat:
    """What a network expects of a line of text.

    height: in pixels; the width is in proportion, min_width at least. margin_y, margin_x: by how much the edge pixels
    are repeated above and below, left and right, as shares of the line's height, in whole pixels, rounded down.
    alphabet: the characters of classes 1, 2, …; class 0 is CTC's blank.
    """

    height: int
    alphabet: str
    margin_y: float = 0.0
    margin_x: float = 0.0
    min_width: int = 16


FORMATS = {
    "crnn": LineFormat(32, DIGITS + SMALLS),
    "easyocr_english_g2": LineFormat(64, DIGITS + SIGNS + CAPITALS + SMALLS, margin_y=0.2, margin_x=0.05),
}


@dataclass(frozen=True, eq=False)
class LineBatches:
    """Prepared lines in memory; iterating draws from torch's global random state where they are shuffled.

    lines: (H, W) uint8 each, of one height. labels: (L,) int64 each, classes of the alphabet without blanks.
    Batches: inputs (N, 1, H, W) from -1 to 1, narrower lines continued with their last column; labels (N, L), shorter
    ones continued with 0. Without shuffling the lines come by width, narrow ones first.
    """

    lines: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    batch_size: int = 32
    shuffle: bool = False

    def __len__(self) -> int:
        return math.ceil(len(self.lines) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        widths = torch.tensor([line.shape[1] for line in self.lines])
        if self.shuffle:
            drawn = torch.randperm(len(self.lines))
            order = drawn[(widths[drawn] // BUCKET).argsort(stable=True)]
        else:
            order = widths.argsort(stable=True)
        batches = torch.split(order, self.batch_size)
        for batch in torch.randperm(len(batches)).tolist() if self.shuffle else range(len(batches)):
            chosen = batches[batch].tolist()
            pixels = join_lines([self.lines[n] for n in chosen])
            labels = torch.nn.utils.rnn.pad_sequence([self.labels[n] for n in chosen], batch_first=True)
            yield pixels[:, None].float().div_(127.5).sub_(1), labels

    def take(self, chosen: Tensor) -> "LineBatches":
        """The same batches over the lines with these indices."""
        numbers = chosen.tolist()
        return replace(self, lines=tuple(self.lines[n] for n in numbers), labels=tuple(self.labels[n] for n in numbers))


def load_lines(
    path: str,
    reader: str = "crnn",
    alphabet: str = "",
    batch_size: int = 32,
    num_calibration: int = 1024,
    seed: int = 0,
) -> Data:
    """Lines from one zip file or folder, or from a folder that holds `train` and `test`, each a zip file or folder.

    A tenth (5,000 at most) of the training lines is held out, and without a `test` as many are the test. reader: a
    name in FORMATS, the network that the lines are prepared for. alphabet: characters in place of the reader's, or a
    name in FORMATS for those of another. Raises LightenError where `labels.tsv`, an image or a character of a label is
    of no use.
    """
    if reader not in FORMATS:
        raise LightenError(f"there is no reader '{reader}' of lines; there are {', '.join(FORMATS)}")
    wanted = FORMATS[reader]
    if alphabet:
        wanted = replace(wanted, alphabet=FORMATS[alphabet].alphabet if alphabet in FORMATS else alphabet)
    train = part_of(Path(path), "train")
    everything = read_lines(train or Path(path), wanted, batch_size)
    if train is None:
        rest, _, tested = split_indices(len(everything.lines), None, 0, seed=0)  # the same whatever the seed
        test: LineBatches | None = everything.take(tested)
        everything = everything.take(rest)
    else:
        other = part_of(Path(path), "test")
        test = None if other is None else read_lines(other, wanted, batch_size)
    parts = split_indices(len(everything.lines), None, num_calibration, seed)
    training, calibration, held_out = (everything.take(part) for part in parts)
    return Data(
        f"lines:{path}",
        replace(training, shuffle=True),
        calibration,
        held_out,
        test,
        len(wanted.alphabet) + 1,
        "word_accuracy",
        wanted.alphabet,
    )


def part_of(folder: Path, name: str) -> Path | None:
    """The zip file or folder of that name in a folder, where there is one."""
    return next((p for p in (folder / f"{name}.zip", folder / name) if p.exists()), None)


def read_lines(path: Path, wanted: LineFormat, batch_size: int = 32) -> LineBatches:
    """All lines of a zip file or folder in the order of `labels.tsv`; raises LightenError, naming the file at fault."""
    try:
        root = Path(path) if path.is_dir() else zipfile.Path(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise LightenError(f"cannot read lines from '{path}', which is neither a folder nor a zip file") from error
    lines, labels = [], []
    for name, text in read_labels(root):
        try:
            image = Image.open(BytesIO((root / name).read_bytes()))
            line = prepare_line(image, wanted)
        except Exception as error:  # Pillow and zipfile raise many kinds for damaged files
            raise LightenError(f"cannot read the line '{name}' of '{path}': {first_line(error)}") from error
        lines.append(line)
        labels.append(encode(text, wanted.alphabet, f"the label of '{name}'"))
    return LineBatches(tuple(lines), tuple(labels), batch_size)


def read_labels(root: Path | zipfile.Path) -> list[tuple[str, str]]:
    """(file, label) of each row of `labels.tsv`."""
    table = root / LABELS
    if not table.exists():
        raise LightenError(f"there is no {LABELS} in '{root}'; each of its rows must be: file, tab, label")
    try:
        rows = table.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise LightenError(f"'{table}' is not UTF-8 text: {error}") from error
    found = []
    for number, row in enumerate(rows, 1):
        name, tab, label = row.removesuffix("\r").partition("\t")
        if not tab:
            raise LightenError(f"row {number} of '{table}' has no tab between file and label: '{row[:40]}'")
        found.append((name, label))
    return found


def prepare_line(image: Image.Image, wanted: LineFormat) -> Tensor:
    """(wanted.height, W) uint8, grey: edge pixels repeated as margins, then resized (bicubic)."""
    pixels = np.asarray(image.convert("L"))
    height = pixels.shape[0]
    margin_y, margin_x = int(wanted.margin_y * height), int(wanted.margin_x * height)
    padded = np.pad(pixels, ((margin_y, margin_y), (margin_x, margin_x)), mode="edge")
    new_width = max(wanted.min_width, round(padded.shape[1] * wanted.height / padded.shape[0]))
    resized = Image.fromarray(padded).resize((new_width, wanted.height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized))


def encode(text: str, alphabet: str, where: str) -> Tensor:
    """(L,) int64, the classes of the characters; a letter that the alphabet has in the other case only is that one.

    Raises LightenError, saying `where`, for a character that the alphabet lacks.
    """
    classes = []
    for character in text:
        known = character if character in alphabet else character.swapcase()
        if len(known) != 1 or known not in alphabet:
            raise LightenError(f"{where} has the character '{character}', which is not in the alphabet '{alphabet}'")
        classes.append(alphabet.index(known) + 1)
    return torch.tensor(classes, dtype=torch.int64)


def join_lines(lines: list[Tensor]) -> Tensor:
    """(N, H, W) of lines (H, w); those narrower than the widest are continued with their last column."""
    width = max(line.shape[1] for line in lines)
    return torch.stack([torch.cat([x, x[:, -1:].expand(-1, width - x.shape[1])], 1) for x in lines])
