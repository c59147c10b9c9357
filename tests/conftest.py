"""What all tests share: data, a small trained network, one thread, no deadlines, a latency cache of their own."""

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from sklearn import datasets
from torch import nn

from lighten.data.batches import Batches, Data

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
settings.register_profile("lighten", deadline=None, derandomize=True)
settings.load_profile("lighten")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data: $LIGHTEN_DATA, or `shared/data` beside the repository; skips where missing."""
    folder = Path(os.environ.get("LIGHTEN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the development data, which is not in '{folder}' (set LIGHTEN_DATA)")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's latency cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def small_data() -> Data:
    """scikit-learn's digits as 8×8 images: 768 to train on, 256 of them to calibrate, 300 held out, 300 to test."""
    stored = datasets.load_digits()
    images = torch.from_numpy(stored.images * 15.9).to(torch.uint8)[:, None]
    labels = torch.from_numpy(stored.target).long()

    def batches(start: int, stop: int, **options: object) -> Batches:
        return Batches(images[start:stop], labels[start:stop], (0.3,), (0.3,), **options)

    return Data(
        "small",
        batches(0, 768, batch_size=64, shuffle=True),
        batches(0, 256),
        batches(768, 1068, batch_size=300),
        batches(1068, 1368, batch_size=300),
        10,
    )


@pytest.fixture(scope="session")
def trained_once(small_data: Data) -> nn.Module:
    """Three convolutions and a linear layer, trained for a second."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(4):
        for inputs, labels in small_data.train:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture
def trained(trained_once: nn.Module) -> nn.Module:
    """A copy that a test may change; its convolutions are '0', '3' and '7'."""
    return copy.deepcopy(trained_once)
