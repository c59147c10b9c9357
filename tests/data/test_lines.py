"""Lines of text from zip files and folders, prepared, encoded and batched."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lighten.data.lines import (
    FORMATS,
    LineBatches,
    LineFormat,
    encode,
    join_lines,
    load_lines,
    prepare_line,
    read_lines,
)
from lighten.errors import LightenError

PLAIN = LineFormat(height=8, alphabet="abc", min_width=4)


def write(folder: Path, num_lines: int, label: str = "a", first: int = 0) -> Path:
    """Lines of 8 pixels' height whose shade and width tell their number."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(first, first + num_lines):
        Image.new("L", (20 + n, 8), n).save(folder / f"{n}.png")
        rows.append(f"{n}.png\t{label}\n")
    (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


def pack(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for source in folder.iterdir():
            file.write(source, source.name)
    return path


def shades(batches: LineBatches) -> list[int]:
    return [round(float(x[0, 0, 0] + 1) * 127.5) for inputs, _ in batches for x in inputs]


def test_zip_and_folder_hold_the_same(tmp_path):
    folder = write(tmp_path / "lines", 3, "cab")
    read = [read_lines(path, PLAIN) for path in (folder, pack(folder))]
    for batches in read:
        assert [line[0, 0].item() for line in batches.lines] == [0, 1, 2]
        assert [line.shape for line in batches.lines] == [(8, 20), (8, 21), (8, 22)]
        assert [label.tolist() for label in batches.labels] == [[3, 1, 2]] * 3


def test_labels_as_windows_writes_them(tmp_path):
    folder = write(tmp_path, 2)
    (folder / "labels.tsv").write_bytes("\ufeff0.png\tb\r\n1.png\t\r\n".encode())
    assert [label.tolist() for label in read_lines(folder, PLAIN).labels] == [[2], []]


def test_batches_are_padded_and_sorted():
    lines = tuple(torch.full((8, width), width, dtype=torch.uint8) for width in (30, 10, 20))
    lines[1][:, -1] = 255
    batches = LineBatches(lines, (torch.tensor([1]), torch.tensor([1, 2]), torch.tensor([3])), batch_size=2)
    (first, labels), (second, _) = batches
    assert len(batches) == 2
    assert first.shape == (2, 1, 8, 20) and second.shape == (1, 1, 8, 30)
    assert labels.tolist() == [[1, 2], [3, 0]]
    torch.testing.assert_close(first[0, 0, 0], torch.tensor([10 / 127.5 - 1] * 9 + [1.0] * 11))
    torch.testing.assert_close(second, torch.full((1, 1, 8, 30), 30 / 127.5 - 1))


def test_shuffled_batches_stay_of_similar_width():
    lines = tuple(torch.zeros(8, 16 * (n % 10 + 1) + n % 3, dtype=torch.uint8) + n for n in range(10, 110))
    labels = tuple(torch.tensor([1]) for _ in lines)
    batches = LineBatches(lines, labels, batch_size=10, shuffle=True)
    epochs = [shades(batches) for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert all(sorted(epoch) == list(range(10, 110)) for epoch in epochs)
    for start in range(0, 100, 10):
        assert len({n % 10 for n in epochs[0][start : start + 10]}) == 1


def test_joined_lines_end_with_their_last_column():
    lines = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])]
    assert join_lines(lines).tolist() == [[[1, 2, 2, 2], [3, 4, 4, 4]], lines[1].tolist()]


def test_margins_repeat_the_edges():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (10, 1))
    line = prepare_line(Image.fromarray(ramp), LineFormat(14, "a", margin_y=0.2, margin_x=0.3))
    assert line.dtype == torch.uint8
    expected = np.pad(ramp, ((2, 2), (3, 3)), mode="edge")
    np.testing.assert_array_equal(line, expected)


def test_height_and_proportion():
    colour = Image.new("RGB", (100, 20), (255, 255, 255))
    assert prepare_line(colour, FORMATS["crnn"]).shape == (32, 160)
    assert prepare_line(colour, FORMATS["easyocr_english_g2"]).shape == (64, 233)  # 102 × 28 pixels with margins
    assert prepare_line(Image.new("L", (2, 40)), FORMATS["crnn"]).shape == (32, 16)


def test_alphabets():
    assert len(FORMATS["crnn"].alphabet) == 36
    published = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert FORMATS["easyocr_english_g2"].alphabet == published


def test_the_case_that_the_alphabet_has():
    assert encode("AbB", "abB", "x").tolist() == [1, 2, 3]
    with pytest.raises(LightenError, match="^x has the character '-', which is not in the alphabet 'abB'$"):
        encode("a-b", "abB", "x")
    with pytest.raises(LightenError, match="the character 'ß'"):
        encode("ß", "sS", "x")


def test_one_source_is_split(tmp_path):
    data = load_lines(str(pack(write(tmp_path / "lines", 40))), num_calibration=5)
    parts = [shades(part) for part in (data.train, data.held_out, data.test)]
    assert [len(part) for part in parts] == [33, 3, 4]
    assert sorted(n for part in parts for n in part) == list(range(40))
    assert len(data.calibration.lines) == 5 and set(shades(data.calibration)) <= set(parts[0])
    assert sorted(shades(load_lines(str(tmp_path / "lines"), seed=3).test)) == sorted(parts[2])
    assert (data.num_classes, data.metric) == (37, "word_accuracy")
    assert data.train.shuffle and not data.test.shuffle


def test_train_and_test(tmp_path):
    pack(write(tmp_path / "train", 20))
    write(tmp_path / "test", 3, first=100)
    data = load_lines(str(tmp_path), reader="easyocr_english_g2")
    assert shades(data.test) == [100, 101, 102]
    assert sorted(shades(data.train) + shades(data.held_out)) == list(range(20))
    assert data.num_classes == 97


def test_another_alphabet(tmp_path):
    folder = str(write(tmp_path, 20, "-a"))
    data = load_lines(folder, alphabet="a-")
    assert (data.num_classes, data.test.labels[0].tolist()) == (3, [2, 1])
    assert load_lines(folder, alphabet="easyocr_english_g2").num_classes == 97


def test_train_alone_has_no_test(tmp_path):
    write(tmp_path / "train", 20)
    assert load_lines(str(tmp_path)).test is None


def spoil(folder: Path, case: str) -> None:
    table = folder / "labels.tsv"
    match case:
        case "no labels":
            table.unlink()
        case "no tab":
            table.write_text("0.png\ta\n1.png b\n")
        case "empty":
            table.write_text("")
        case "not UTF-8":
            table.write_bytes(b"0.png\t\xff\n")
        case "absent":
            table.write_text("7.png\ta\n")
        case "no image":
            (folder / "1.png").write_bytes(b"x")
        case "truncated":
            (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
        case "character":
            table.write_text("0.png\ta\n1.png\taé\n", encoding="utf-8")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no labels", "there is no labels.tsv in '.*'; each of its rows must be: file, tab, label"),
        ("no tab", "row 2 of '.*labels.tsv' has no tab between file and label: '1.png b'"),
        ("empty", "row 1 of '.*labels.tsv' has no tab between file and label: ''"),
        ("not UTF-8", "labels.tsv' is not UTF-8 text: "),
        ("absent", "cannot read the line '7.png' of '.*': "),
        ("no image", "cannot read the line '1.png' of '.*': cannot identify image file"),
        ("truncated", "cannot read the line '1.png' of '.*': "),
        ("character", "the label of '1.png' has the character 'é', which is not in the alphabet 'abc'"),
    ],
)
def test_refused(tmp_path, case, message, packed):
    folder = write(tmp_path / "lines", 2)
    spoil(folder, case)
    with pytest.raises(LightenError, match=message):
        read_lines(pack(folder) if packed else folder, PLAIN)


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    for name in ("x.zip", "absent"):
        with pytest.raises(LightenError, match=f"'.*{name}', which is neither a folder nor a zip file"):
            read_lines(tmp_path / name, PLAIN)


def test_unknown_reader(tmp_path):
    with pytest.raises(LightenError, match="there is no reader 'x' of lines; there are crnn, easyocr_english_g2"):
        load_lines(str(tmp_path), reader="x")
