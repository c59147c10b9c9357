"""Does the predicted loss rank swaps as the clockwork of the network does? Spearman over single-site swaps.

    python benchmarks/predicted_loss.py --shared ../shared/data

A random 150 of all fitted variants of ResNet-20 are put into the trained network, one at a time, and the divergence
KL(original ‖ changed) is measured on held-out training images that the moments never saw.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from scipy.stats import spearmanr

import lighten
from lighten.measure.accuracy import divergence, teacher_logits
from lighten.measure.latency import machine
from lighten.models.weights import load_weights
from lighten.planning import build, plan_of, prepare
from lighten.progress import Stages
from lighten.shrink import first_images

ROOT = Path(__file__).resolve().parent.parent
NUM_SWAPS, NUM_IMAGES, BAR = 150, 512, 0.92


def main() -> None:
    """Measure, print one line of JSON, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    shared = parser.parse_args().shared
    torch.set_num_threads(2)
    model = lighten.build_model("resnet20")
    load_weights(model, shared / "resnet_cifar10" / "resnet20.safetensors")
    model.to(memory_format=torch.channels_last)
    data = lighten.load_data(f"cifar10:{shared / 'cifar10'}")
    prepared = prepare(model, "resnet20", data, lighten.Settings(), Stages())
    variants = [v for group in prepared.variants.values() for v in group if v.rewrite]
    chosen = random.Random(0).sample(variants, NUM_SWAPS)
    images = first_images(data.held_out, NUM_IMAGES)
    logits = teacher_logits(model, images)
    pairs = []
    for variant in chosen:
        swapped = build(prepared, plan_of(prepared, [variant]), [variant])
        pairs.append((variant.predicted_loss, divergence(swapped, images, logits)))
    rank = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    found = {"spearman": rank, "bar": BAR, "met": rank >= BAR, "num_swaps": NUM_SWAPS, "num_images": NUM_IMAGES}
    found |= {"pairs": pairs, "machine": machine(2)}
    (ROOT / "benchmarks" / "results" / "predicted_loss.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "pairs"}))


if __name__ == "__main__":
    main()
