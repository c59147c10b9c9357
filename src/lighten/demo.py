"""The main job on data that scikit-learn brings along: a small net, trained on the spot and lightened."""

from pathlib import Path

import torch

from lighten.data import load_data
from lighten.models import build_model
from lighten.progress import OnProgress
from lighten.recover.distil import Recipe
from lighten.shrink import Lightened, shrink
from lighten.train import TrainRecipe, fit

MODEL, DATA, BUDGET = "digits_vgg", "digits", "latency<=0.4x"
TRAINING = TrainRecipe(epochs=8, optimizer="adamw", learning_rate=4e-3, average_decay=0.0, label_smoothing=0.0)
RECIPE = Recipe(epochs=12)


def demo(out: Path, show: OnProgress) -> Lightened:
    """Train, lighten, prove; the folder `out` is replaced."""
    torch.manual_seed(0)
    data = load_data(DATA)
    model = build_model(MODEL)
    fit(model, data, TRAINING, show)
    return shrink(model, data, BUDGET, out=out, name=MODEL, recipe=RECIPE, force=True, show=show)
