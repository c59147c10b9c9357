"""How long counting ResNet-50 takes: `lighten.count` beside torchinfo, fvcore, thop, ptflops and one forward pass.

    python benchmarks/count_speed.py

All take turns in one process, on one thread, for the same network and one image of 224 × 224. The bar: no longer than
half a second or 1.5 forward passes, whichever is more, and no longer than the fastest of the others.
"""

import contextlib
import io
import json
import logging
import warnings
from importlib import metadata
from pathlib import Path

import ptflops
import thop
import torch
import torchinfo
import torchvision
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

import lighten
from lighten.measure.latency import Call, machine, time_alternating

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("torchinfo", "fvcore", "thop", "ptflops")
SECONDS = 10  # for each


def forward(model: nn.Module, image: Tensor) -> Tensor:
    """One eager pass."""
    with torch.inference_mode():
        return model(image)


def count_with_ptflops(model: nn.Module, image: Tensor) -> object:
    """ptflops makes its own input, and prints."""
    shape = tuple(image.shape[1:])
    with contextlib.redirect_stdout(io.StringIO()):
        return ptflops.get_model_complexity_info(model, shape, print_per_layer_stat=False, as_strings=False)


def calls(model: nn.Module, image: Tensor) -> dict[str, Call]:
    """What takes turns."""
    return {
        "lighten": lambda: lighten.count(model, image),
        "torchinfo": lambda: torchinfo.summary(model, input_data=image, verbose=0),
        "fvcore": lambda: FlopCountAnalysis(model, image).total(),
        "thop": lambda: thop.profile(model, (image,), verbose=False),
        "ptflops": lambda: count_with_ptflops(model, image),
        "forward": lambda: forward(model, image),
    }


def main() -> None:
    """Time all, print a table and the verdict, and keep them."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    model, image = torchvision.models.resnet50().eval(), torch.randn(1, 3, 224, 224)
    timings = time_alternating(calls(model, image), seconds=SECONDS)
    medians = {name: timing.median_ms for name, timing in timings.items()}
    bar = max(500.0, 1.5 * medians["forward"])
    fastest = min(OTHERS, key=medians.__getitem__)
    rows = [
        {"name": name, "median_ms": t.median_ms, "low_ms": t.low_ms, "high_ms": t.high_ms, "num_runs": t.num_runs}
        for name, t in timings.items()
    ]
    found = {
        "network": "torchvision resnet50, 1×3×224×224",
        "rows": rows,
        "bar_ms": bar,
        "fastest_of_the_others": fastest,
        "met": medians["lighten"] <= min(bar, medians[fastest]),
        "machine": machine(1) | {name: metadata.version(name) for name in ("torchvision", *OTHERS)},
    }
    out = ROOT / "benchmarks" / "results" / "count_speed.json"
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print("| | median, ms | 10th to 90th percentile | beside one forward pass |")
    print("| --- | ---: | ---: | ---: |")
    for row in rows:
        ratio = row["median_ms"] / medians["forward"]
        print(f"| {row['name']} | {row['median_ms']:.0f} | {row['low_ms']:.0f}–{row['high_ms']:.0f} | {ratio:.2f} |")
    print(json.dumps({key: found[key] for key in ("bar_ms", "fastest_of_the_others", "met")}))


if __name__ == "__main__":
    main()
