"""When separable pays by the clock: dense ÷ separable over N outputs for k = 2…7, in ONNX Runtime, one thread.

    python benchmarks/separable_threshold.py [--chart threshold.html]

Two inputs: 64 channels on 28×28, and 3 channels on 56×56. Everything is timed anew, each N in three runs, of which the
median counts; by formula the threshold is N > k²/(k²−1).
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from lighten.advise import place_of, separable_ratio, threshold
from lighten.measure.latency import machine
from lighten.measure.latency_table import LatencyTable
from lighten.report.separable_chart import INPUTS, WINDOWS, Point, measure_points, write_chart

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
NUM_RUNS = 3


def measure() -> tuple[list[Point], str]:
    """Points whose times are medians of independent runs, and where they were measured."""
    runs = []
    for _ in range(NUM_RUNS):
        with tempfile.TemporaryDirectory() as folder:
            clock = LatencyTable(Path(folder) / "latency.json")
            clock.seconds = 0.2
            runs.append(measure_points(clock, tuple(WINDOWS), OUTPUTS))
    points = [
        Point(
            *(same[0].num_inputs, same[0].size, same[0].window, same[0].num_outputs),
            statistics.median(p.dense_ms for p in same),
            statistics.median(p.separable_ms for p in same),
        )
        for same in zip(*runs, strict=True)
    ]
    return points, place_of(clock)


def measured_threshold(points: list[Point], place: tuple[int, int], window: int) -> int | None:
    """The least N from which on separable is faster at every larger N that was measured; None where it never is."""
    found = None
    group = [p for p in points if (p.num_inputs, p.size) == place and p.window == window]
    for point in sorted(group, key=lambda p: -p.num_outputs):
        if point.ratio <= 1:
            break
        found = point.num_outputs
    return found


def main() -> None:
    """Measure, print the table, keep the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chart", type=Path, help="also draw the chart: .html, .svg or .png")
    chart_path = parser.parse_args().chart
    points, place = measure()
    rows = [
        {
            "num_inputs": num_inputs,
            "size": size,
            "window": k,
            "threshold_by_formula": threshold(k**2),
            "threshold_measured": measured_threshold(points, (num_inputs, size), k),
        }
        for num_inputs, size in INPUTS
        for k in WINDOWS
    ]
    print("| input | k | pays by formula from N > | by the clock from N = | at N = 64, formula | at N = 64, clock |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        where, k = (row["num_inputs"], row["size"]), row["window"]
        at_64 = next(p for p in points if (p.num_inputs, p.size, p.window, p.num_outputs) == (*where, k, 64))
        print(
            f"| {where[0]}×{where[1]}×{where[1]} | {k} | {row['threshold_by_formula']:.3f} "
            f"| {row['threshold_measured'] or 'never'} | {separable_ratio(64, k**2):.2f}× | {at_64.ratio:.2f}× |"
        )
    kept = [asdict(p) | {"ratio": p.ratio, "by_formula": separable_ratio(p.num_outputs, p.window**2)} for p in points]
    found = {"thresholds": rows, "points": kept, "machine": machine(1)}
    path = ROOT / "benchmarks" / "results" / "separable_threshold.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    if chart_path:
        write_chart(points, f"{machine(1)['cpu']}, {place}", chart_path)


if __name__ == "__main__":
    main()
