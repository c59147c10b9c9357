"""The zoo's folders load without anything else, cost what their results say, and one is as accurate as it says."""

import json
from pathlib import Path

import pytest
import torch

import lighten
from lighten.data.batches import Batches
from lighten.data.cifar10 import IMAGENET_MEAN, IMAGENET_STD, read_sheets
from lighten.export.parity import check_parity

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "zoo").glob("*/plan.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_rebuilds_its_network(folder):
    results = json.loads((folder / "results.json").read_text())
    model = lighten.load(folder)
    cost = lighten.trace(model, torch.zeros(1, *results["input_shape"])).cost
    assert (cost.macs, cost.params) == (results["after"]["macs"], results["after"]["params"])
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert check_parity(model, folder / "model.onnx", torch.randn(4, *results["input_shape"])).agrees


def test_the_stated_accuracy_is_reached(shared_data):
    folder = next(path for path in FOLDERS if path.name == "resnet20-cifar10-latency0.5")
    test = Batches(*read_sheets(shared_data / "cifar10", "test"), IMAGENET_MEAN, IMAGENET_STD, batch_size=500)
    stated = json.loads((folder / "results.json").read_text())["after"]["accuracy"]
    assert lighten.evaluate(lighten.load(folder), test).value == pytest.approx(stated, abs=0.05)
