"""EasyOCR's English recogniser with its real weights on 3,000 lines of scanned receipts, read greedily.

    python benchmarks/english_g2_receipts.py --shared ../shared/data

The labels are upper case, so that what counts is the share of lines read right ignoring case and spaces.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from lighten.data.lines import FORMATS, read_lines
from lighten.measure.text import fold, read_texts, word_accuracy
from lighten.models.easyocr import easyocr_english_g2
from lighten.models.weights import load_weights

ROOT = Path(__file__).resolve().parent.parent
BAR, SLACK = 64.1, 0.2  # per cent


def main() -> None:
    """Measure, print one line of JSON, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    model = easyocr_english_g2()
    load_weights(model, options.shared / "easyocr_english_g2" / "english_g2.safetensors")
    chosen = FORMATS["easyocr_english_g2"]
    lines = read_lines(options.shared / "receipt_lines" / "test.zip", chosen, options.batch_size)
    start = time.perf_counter()
    read, true = read_texts(model, lines, chosen.alphabet)
    ignoring = word_accuracy([fold(text) for text in read], [fold(text) for text in true])
    found = {
        "exact": round(word_accuracy(read, true), 2),
        "ignoring_case_and_spaces": round(ignoring, 2),
        "bar": BAR,
        "met": abs(ignoring - BAR) <= SLACK,
        "num_samples": len(true),
        "batch_size": options.batch_size,
        "seconds": round(time.perf_counter() - start),
        "torch": torch.__version__,
    }
    (ROOT / "benchmarks" / "results" / "english_g2_receipts.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
