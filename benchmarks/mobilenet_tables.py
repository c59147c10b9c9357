"""MobileNet V1, V2 and V3: parameters and MACs as published, beside ours, as a page in Markdown.

    python benchmarks/mobilenet_tables.py > docs/mobilenet-tables.md

Nothing is trained or timed: one pass on PyTorch's meta device for each line.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from lighten.models.mobilenet_v1 import mobilenet_v1
from lighten.models.mobilenet_v2 import mobilenet_v2
from lighten.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from lighten.network.trace import trace

ROOT = Path(__file__).resolve().parent.parent
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    f.__name__: f for f in (mobilenet_v1, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small)
}

HEAD = """# The MobileNets beside their published tables

Printed by `python benchmarks/mobilenet_tables.py`. Millions; ours with 1000 classes, parameters of norms included.
Published figures agree where ours, rounded to as many digits, differ by one in the last at most (papers round and cut
at will); everything else has a note."""


@dataclass(frozen=True, slots=True)
class Published:
    """A line of a published table; macs and params: millions, as printed. note: why ours differ, a key of NOTES."""

    network: str
    alpha: float
    size: int
    macs: str
    params: str
    source: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.network} {self.alpha:g} @{self.size} in {self.source}"


NOTES = {
    "stem": "The authors' page leaves out the stem at α = 0.75: less its 27·24·(size/2)² MACs, ours are 317, 233, 162 "
    "and 104 million. The paper (325) counts it.",
    "typo": "34 fits no count of these layers: MACs go with the number of pixels, so that 41 million at 224 make 30 at "
    "192, and 21 and 14 at 160 and 128, as the same page says.",
    "norms": "The authors' page counts no parameters of batch norms; less those, ours agree to 0.01 million.",
    "wide": "585 M and 6.9 M are no released network's: for α = 1.4 the authors' page has 582 M and 6.06 M (without "
    "norms), which agrees with ours.",
    "large": "The paper says 219 M, the authors' page 217 M for the network that they released; that one is ours.",
    "early": "The paper's first editions and the authors' page have 66 M and 2.9 M; later editions have 56 M and 2.5 M "
    "for the same table of layers, which is ours.",
    "narrow": "The authors multiply each block's *rounded* input by the expansion and keep the last linear layer at "
    "full width; with that the formulas give 154.6 M and 3.99 M (Large), 43.4 M and 2.04 M (Small). We scale every "
    "width of the table, as torchvision does, whose weights then fit. Small's 2.4 M is of the first editions.",
}


def rows(network: str, source: str, table: str, notes: dict[str, str]) -> tuple[Published, ...]:
    """The lines `alpha size macs params` of a table; notes: {"alpha size", or the alpha alone: key of NOTES}."""
    found = []
    for line in table.strip().splitlines():
        alpha, size, macs, params = line.split()
        note = notes.get(f"{alpha} {size}", notes.get(alpha, notes.get("all", "")))
        found.append(Published(network, float(alpha), int(size), macs, params, source, note))
    return tuple(found)


V1 = (
    *rows(
        "mobilenet_v1",
        "Howard et al. 2017, tables 6, 7 and 9",
        """
        1.0 224 569 4.2
        0.75 224 325 2.6
        0.5 224 149 1.3
        0.25 224 41 0.5
        1.0 192 418 4.2
        1.0 160 290 4.2
        1.0 128 186 4.2
        0.5 160 76 1.32
        """,
        {},
    ),
    *rows(
        "mobilenet_v1",
        "authors' page, mobilenet_v1.md",
        """
        1.0 224 569 4.24
        1.0 192 418 4.24
        1.0 160 291 4.24
        1.0 128 186 4.24
        0.75 224 317 2.59
        0.75 192 233 2.59
        0.75 160 162 2.59
        0.75 128 104 2.59
        0.5 224 150 1.34
        0.5 192 110 1.34
        0.5 160 77 1.34
        0.5 128 49 1.34
        0.25 224 41 0.47
        0.25 192 34 0.47
        0.25 160 21 0.47
        0.25 128 14 0.47
        """,
        {"0.75": "stem", "0.25 192": "typo"},
    ),
)
V2 = (
    *rows(
        "mobilenet_v2",
        "Sandler et al. 2018, table 4",
        """
        1.0 224 300 3.4
        1.4 224 585 6.9
        """,
        {"1.4": "wide"},
    ),
    *rows(
        "mobilenet_v2",
        "authors' page, mobilenet/README.md",
        """
        1.4 224 582 6.06
        1.3 224 509 5.34
        1.0 224 300 3.47
        1.0 192 221 3.47
        1.0 160 154 3.47
        1.0 128 99 3.47
        1.0 96 56 3.47
        0.75 224 209 2.61
        0.75 192 153 2.61
        0.75 160 107 2.61
        0.75 128 69 2.61
        0.75 96 39 2.61
        0.5 224 97 1.95
        0.5 192 71 1.95
        0.5 160 50 1.95
        0.5 128 32 1.95
        0.5 96 18 1.95
        0.35 224 59 1.66
        0.35 192 43 1.66
        0.35 160 30 1.66
        0.35 128 20 1.66
        0.35 96 11 1.66
        """,
        {"all": "norms"},
    ),
)
PAPER_V3, PAGE_V3 = "Howard et al. 2019, table 3", "authors' page, mobilenet/README.md"
V3 = (
    *rows("mobilenet_v3_large", PAPER_V3, "1.0 224 219 5.4\n0.75 224 155 4.0", {"1.0": "large", "0.75": "narrow"}),
    *rows("mobilenet_v3_small", PAPER_V3, "1.0 224 56 2.5\n0.75 224 44 2.0", {"0.75": "narrow"}),
    *rows("mobilenet_v3_large", PAGE_V3, "1.0 224 217 5.4\n0.75 224 155 4.0", {"0.75": "narrow"}),
    *rows("mobilenet_v3_small", PAGE_V3, "1.0 224 66 2.9\n0.75 224 44 2.4", {"1.0": "early", "0.75": "narrow"}),
)


def count(network: str, alpha: float, size: int) -> tuple[int, int]:
    """MACs and parameters of ours, 1000 classes, for a square image."""
    with torch.device("meta"):
        cost = trace(NETWORKS[network](alpha=alpha), torch.zeros(1, 3, size, size)).cost
    return cost.macs, cost.params


def agrees(row: Published) -> bool:
    """Whether ours, rounded as the line is printed, differ by one in the last digit at most."""
    counts = zip(count(row.network, row.alpha, row.size), (row.macs, row.params), strict=True)
    return all(near(ours / 1e6, printed) for ours, printed in counts)


def near(ours: float, printed: str) -> bool:
    """Whether a number, rounded to the printed digits, differs by one in the last of them at most."""
    decimals = len(printed.partition(".")[2])
    return abs(round(ours * 10**decimals) - round(float(printed) * 10**decimals)) <= 1


def main() -> None:
    """Print the page and keep the figures."""
    results = []
    print(HEAD)
    for title, table in (("V1", V1), ("V2", V2), ("V3", V3)):
        print(f"\n## MobileNet {title}\n")
        print("| network | α | input | MACs, published | ours | parameters, published | ours | source | |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for row in table:
            macs, params = count(row.network, row.alpha, row.size)
            fits = near(macs / 1e6, row.macs) and near(params / 1e6, row.params)
            remark = "agrees" if fits else f"note *{row.note}*"
            print(
                f"| {row.network} | {row.alpha:g} | {row.size} | {row.macs} | {macs / 1e6:.2f} | {row.params} "
                f"| {params / 1e6:.3f} | {row.source} | {remark} |"
            )
            results.append(asdict(row) | {"our_macs": macs, "our_params": params, "agrees": fits})
    print("\n## Notes\n")
    for name, text in NOTES.items():
        print(f"- *{name}*: {text}")
    kept = json.dumps({"rows": results, "notes": NOTES}, indent=1, ensure_ascii=False)
    (ROOT / "benchmarks" / "results" / "mobilenet_tables.json").write_text(kept + "\n")


if __name__ == "__main__":
    main()
