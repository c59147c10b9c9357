"""EasyOCR's English recogniser: its cost, its real weights, what it reads."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from lighten.data.lines import FORMATS, LineBatches, encode, prepare_line, read_labels
from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.measure.text import fold, read_texts, word_accuracy
from lighten.models.easyocr import easyocr_english_g2
from lighten.models.weights import load_weights
from lighten.network.trace import trace

FORMAT = FORMATS["easyocr_english_g2"]


@pytest.fixture(scope="module")
def real(shared_data: Path):
    weights = shared_data / "easyocr_english_g2" / "english_g2.safetensors"
    if not weights.is_file():
        pytest.skip(f"needs the trained weights in '{weights}'")
    model = easyocr_english_g2()
    load_weights(model, weights)
    return model.eval()


def test_counts():
    """Parameters and MACs of a line of 64 × 256."""
    found = trace(easyocr_english_g2(), torch.zeros(1, 1, 64, 256))
    macs = {kind: sum(s.cost.macs for s in found.sites if s.kind == kind) for kind in ("conv2d", "linear", "lstm")}
    assert found.cost.params == 3_781_345
    assert macs == {"conv2d": 809_238_528, "linear": 18_079_488, "lstm": 132_120_576}


def test_steps_and_classes():
    model = easyocr_english_g2(num_classes=5).eval()
    assert model(torch.randn(2, 1, 64, 103)).shape == (2, 24, 5)
    assert model(torch.randn(1, 1, 32, 8)).shape == (1, 1, 5)


@pytest.mark.parametrize("shape", [(64, 7), (31, 64)])
def test_lines_that_are_too_small(shape):
    height, width = shape
    expected = rf"english_g2 reads lines of 32×8 pixels \(height × width\) at least, not {height}×{width}"
    with pytest.raises(LightenError, match=expected):
        easyocr_english_g2()(torch.zeros(1, 1, height, width))


def test_parity_of_the_file(real, tmp_path):
    export_onnx(real, torch.randn(1, 1, 64, 48), tmp_path / "model.onnx")
    assert check_parity(real, tmp_path / "model.onnx", torch.randn(3, 1, 64, 48)).max_relative_error < 1e-4


def test_reads_receipts(real, shared_data):
    path = shared_data / "receipt_lines" / "test.zip"
    if not path.is_file():
        pytest.skip(f"needs the lines of receipts in '{path}'")
    root = zipfile.Path(path)
    rows = read_labels(root)[:100]
    lines = tuple(prepare_line(Image.open(BytesIO((root / name).read_bytes())), FORMAT) for name, _ in rows)
    labels = tuple(encode(text, FORMAT.alphabet, name) for name, text in rows)
    read, true = read_texts(real, LineBatches(lines, labels), FORMAT.alphabet)
    assert sorted(true) == sorted(text for _, text in rows)
    found = word_accuracy(read, true), word_accuracy([fold(t) for t in read], [fold(t) for t in true])
    assert found == pytest.approx((35, 47), abs=1)
