"""Each built-in network goes through all jobs: it is trained, shrunk, timed and exported."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch

import lighten
from lighten import Recipe, Settings, TrainRecipe
from lighten.data.batches import Batches, Data
from lighten.export.parity import Parity
from lighten.measure.latency import Timing, time_networks
from lighten.models import MODELS
from lighten.plan.variants import eligible

LIGHT = {  # options and input shapes that make the job short
    "crnn": ("hidden=8", (1, 32, 24)),
    "crnn_separable": ("hidden=8,head=conv,dense_stem=true", (1, 32, 24)),
    "easyocr_english_g2": ("", (1, 32, 24)),
    "mobilenet_v1": ("alpha=0.25", (3, 32, 32)),
    "mobilenet_v2": ("alpha=0.25", (3, 32, 32)),
    "mobilenet_v3_large": ("alpha=0.25", (3, 32, 32)),
    "mobilenet_v3_small": ("alpha=0.25", (3, 32, 32)),
    "digits_vgg": ("width=4", (1, 16, 16)),
}
NUM_SITES = 2  # that are rewritten


def noise(shape: tuple[int, ...], reads_text: bool) -> Data:
    """Sixteen random images, of two classes or with a text of one character."""
    images = torch.randint(0, 256, (16, *shape), dtype=torch.uint8)
    labels = torch.arange(16) % 2 + int(reads_text)
    labels = labels[:, None] if reads_text else labels
    plain = Batches(images, labels, (0.5,) * shape[0], (0.25,) * shape[0], batch_size=8)
    train = replace(plain, shuffle=True)
    return Data("noise", train, plain, plain, plain, 3, "word_accuracy" if reads_text else "top1")


@pytest.fixture
def quick(monkeypatch):
    """No export within `shrink`, neither to keep nor to time: that takes most of the time, and happens at the end."""
    module = import_module("lighten.shrink")
    timings = {name: Timing(1.0, 1.0, 1.0, 5) for name in ("before", "after")}
    monkeypatch.setattr(module, "time_networks", lambda *_: timings)
    monkeypatch.setattr(module, "export_onnx", lambda model, example, path: path.write_bytes(b"onnx"))
    monkeypatch.setattr(module, "check_parity", lambda model, path, inputs: Parity(0.0, len(inputs), True))


@pytest.mark.parametrize("name", MODELS)
def test_every_job(name, tmp_path, quick):
    options, shape = LIGHT.get(name, ("", (3, 32, 32)))
    text = f"{name}:num_classes=3" + (f",{options}" if options else "")
    data = noise(shape, "crnn" in name or "ocr" in name)
    recipe = TrainRecipe(epochs=1, learning_rate=1e-3, precision="32-true")
    trained = lighten.train(lighten.build_model(text), data, out=tmp_path / "trained", name=text, recipe=recipe)
    assert trained.results.epochs[0].loss > 0 and trained.results.metric == data.metric
    found = lighten.trace(trained.model, torch.zeros(1, *shape))
    sites = [site.name for site in eligible(trained.model, found, (), ("low-rank",))[0]]
    settings = Settings(methods=("low-rank",), keep=tuple(sites[NUM_SITES:]))
    made = lighten.shrink(
        trained.model,
        data,
        "params<=0.9999x",
        out=tmp_path / "light",
        name=text,
        settings=settings,
        recipe=Recipe(epochs=0),
    )
    assert 1 <= len(made.plan.choices) <= NUM_SITES
    assert made.results.after.params < made.results.before.params
    loaded = lighten.load(tmp_path / "light")
    example = torch.randn(2, *shape)
    torch.testing.assert_close(loaded(example), made.model(example))
    assert time_networks({"loaded": (loaded, example)}, seconds=0.05)["loaded"].median_ms > 0
