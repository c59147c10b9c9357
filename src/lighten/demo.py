"""The main job on data that scikit-learn brings along: a small net, trained on the spot and lightened."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from lighten.data import Data, load_data
from lighten.models import build_model
from lighten.progress import OnProgress
from lighten.recover.distil import Recipe
from lighten.shrink import Lightened, shrink

MODEL, DATA, BUDGET = "digits_vgg", "digits", "latency<=0.4x"
NUM_EPOCHS = 8
RECIPE = Recipe(epochs=12)


def demo(out: Path, show: OnProgress) -> Lightened:
    """Train, lighten, prove; the folder `out` is replaced."""
    torch.manual_seed(0)
    data = load_data(DATA)
    model = build_model(MODEL)
    train(model, data, show)
    return shrink(model, data, BUDGET, out=out, name=MODEL, recipe=RECIPE, force=True, show=show)


def train(model: nn.Module, data: Data, show: OnProgress) -> None:
    """A few epochs of AdamW, in place: enough for digits."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=NUM_EPOCHS * len(data.train))
    model.train()
    for epoch in range(NUM_EPOCHS):
        show("train", epoch / NUM_EPOCHS, f"the dense network, epoch {epoch + 1}/{NUM_EPOCHS}")
        for inputs, labels in data.train:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    show("train", 1.0, "")
