"""Distillation: the lighter network learns the original's answers, and the labels where the data have them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from lighten.data.batches import Data
from lighten.errors import LightenError
from lighten.recover.composed import composed
from lighten.recover.rate import gentle_rate
from lighten.recover.speed import fastest_way
from lighten.training.muon import Muon
from lighten.training.run import Loss, Progress, Run, Schedule, finish, resumed

RATES = {"sgd": (0.03, 0.01, 0.003, 0.001), "muon": (0.003, 0.001, 0.0003, 0.0001)}  # to choose from
DECAYS = {"sgd": 1e-4, "muon": 1e-2}
START_SLACK = 1.0  # points: the original has mostly learnt the held-out slice, so a fitted start looks too good there


@dataclass(frozen=True, slots=True)
class Recipe(Schedule):
    """How recovery runs.

    temperature: of the softened answers (Hinton et al. 2015, section 2); label_weight: share of the labels' loss.
    learning_rate: None for the largest that keeps the fitted start (`rate.py`). optimizer: sgd (with Nesterov's
    momentum) or muon (`training/muon.py`); weight_decay: None for the optimizer's own in DECAYS.
    """

    optimizer: str = "sgd"
    weight_decay: float | None = None
    temperature: float = 4.0
    label_weight: float = 0.1


def distil(
    lighter: nn.Module,
    original: nn.Module,
    data: Data,
    recipe: Recipe,
    names: Sequence[str] = (),
    checkpoint_path: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train `lighter` in place; it ends with the weights of the epoch that was best on the held-out slice.

    The start stays only where every epoch is worse than it by more than START_SLACK.

    names: the sites that were rewritten, which may be trained through their equivalent dense kernels.
    Raises LightenError where the loss is no longer finite, naming the layer; the last checkpoint stays.
    """
    way = fastest_way(lighter, original, next(iter(data.calibration))[0], names, recipe.precision)
    with composed(lighter, original, names if way.composed else ()):
        run = recovery(lighter, original, data, recipe, way.precision)
        if not (resume and resumed(run, checkpoint_path)):
            run.progress.learning_rate = recipe.learning_rate or gentle_rate(run, RATES[recipe.optimizer])
        finish(run, checkpoint_path, on_progress)
    return run.progress


def recovery(lighter: nn.Module, original: nn.Module, data: Data, recipe: Recipe, precision: str) -> Run:
    """A run in which `lighter` learns from `original`, which stays as it is."""
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    optimizer = optimizer_of(lighter, recipe)
    loss = distillation(original, recipe, fabric)
    return Run(lighter, data, recipe, loss, optimizer, fabric, start_slack=START_SLACK, job="recovery")


def optimizer_of(lighter: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Of all parameters; the run sets the learning rate before each step. Raises LightenError for an unknown one."""
    if recipe.optimizer not in DECAYS:
        raise LightenError(f"recovery knows no optimizer '{recipe.optimizer}': known are {', '.join(DECAYS)}")
    decay = DECAYS[recipe.optimizer] if recipe.weight_decay is None else recipe.weight_decay
    if recipe.optimizer == "muon":
        return Muon(lighter.parameters(), 0.0, weight_decay=decay)
    return torch.optim.SGD(lighter.parameters(), 0.0, 0.9, weight_decay=decay, nesterov=True)


def distillation(original: nn.Module, recipe: Recipe, fabric: Fabric) -> Loss:
    """The loss of a batch: how far the network's answers are from those of a copy of the original."""
    copied = copy.deepcopy(original).eval().to(memory_format=torch.channels_last)  # the caller's keeps its flags
    teacher = fabric.setup_module(copied).requires_grad_(False)

    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(inputs)
        return distillation_loss(network(inputs), wanted, labels, recipe)

    return loss


def distillation_loss(logits: Tensor, wanted: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Softened divergence from the original, and cross-entropy where a label isn't -1 (Hinton et al. 2015).

    logits, wanted: (N, classes), or (N, T, classes) of a recogniser, whose labels belong to no step and don't count.
    """
    if logits.ndim == 3:
        logits, wanted, labels = logits.flatten(0, 1), wanted.flatten(0, 1), labels.new_full((1,), -1)
    t = recipe.temperature
    soft = F.kl_div((logits / t).log_softmax(-1), (wanted / t).log_softmax(-1), reduction="batchmean", log_target=True)
    known = labels >= 0
    if not recipe.label_weight or not known.any():
        return t * t * soft
    hard = F.cross_entropy(logits, labels, ignore_index=-1)
    return (1 - recipe.label_weight) * t * t * soft + recipe.label_weight * hard
