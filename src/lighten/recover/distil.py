"""Distillation: the lighter network learns the original's answers, and the labels where the data have them."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from lighten.data.batches import Data
from lighten.errors import LightenError
from lighten.measure.accuracy import evaluate
from lighten.recover.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lighten.recover.composed import composed
from lighten.recover.rate import gentle_rate
from lighten.recover.speed import channels_last_of, fastest_way

START_SLACK = 1.0  # points: the original has mostly learnt the held-out slice, so a fitted start looks too good there


@dataclass(frozen=True, slots=True)
class Recipe:
    """How recovery runs; it ends at `epochs` or `minutes`, whichever comes first.

    temperature: of the softened answers (Hinton et al. 2015, section 2); label_weight: share of the labels' loss.
    learning_rate: its peak after the warm-up, None for the largest that keeps the fitted start (`rate.py`); it falls
    to zero as a cosine of the share of epochs or minutes that has passed. precision: None lets the clock choose.
    """

    epochs: int = 12
    minutes: float | None = None
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    temperature: float = 4.0
    label_weight: float = 0.1
    warmup: float = 0.03
    clip_norm: float = 5.0
    precision: str | None = None
    checkpoint_minutes: float = 2.0
    seed: int = 0


@dataclass(slots=True)
class Progress:
    """Where a run is: what a progress bar shows and the results keep. history: one record per finished epoch.

    best_epoch: the one that is kept; 0 is the start.
    """

    epoch: int = 0
    batch: int = 0
    num_batches: int = 0
    seconds: float = 0.0
    share: float = 0.0
    loss: float = math.nan
    best_epoch: int = 0
    best_accuracy: float = -1.0
    learning_rate: float = 0.0
    history: list[dict] = field(default_factory=list)


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
        run = Run(lighter, original, data, recipe, way.precision)
        if resume and checkpoint_path and checkpoint_path.exists():
            run.restore(load_checkpoint(checkpoint_path))
        else:
            run.progress.learning_rate = recipe.learning_rate or gentle_rate(run)
        train(run, checkpoint_path, on_progress)
    lighter.load_state_dict(run.best)
    return run.progress


def train(run: "Run", checkpoint_path: Path | None, on_progress: Callable[[Progress], None]) -> None:
    """Epochs until the recipe is over, with checkpoints in between."""
    saved_at = time.monotonic()
    while not run.is_over():
        for batch in run.epoch_batches():
            run.step(*batch)
            on_progress(run.progress)
            if checkpoint_path and time.monotonic() - saved_at > 60 * run.recipe.checkpoint_minutes:
                save_checkpoint(checkpoint_path, run.checkpoint())
                saved_at = time.monotonic()
            if run.share() >= 1:
                break
        run.finish_epoch()
        on_progress(run.progress)
    if checkpoint_path and run.progress.history:
        save_checkpoint(checkpoint_path, run.checkpoint())


class Run:
    """The state of one recovery: everything that a checkpoint holds, and one step at a time."""

    def __init__(self, lighter: nn.Module, original: nn.Module, data: Data, recipe: Recipe, precision: str):
        self.recipe, self.data, self.lighter = recipe, data, lighter
        fabric = self.fabric = Fabric(accelerator="auto", devices=1, precision=precision)
        teacher = copy.deepcopy(original).eval()  # the caller's network keeps its flags and memory format
        for network in (lighter, teacher):
            network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            lighter.parameters(),
            0.0,  # set before each step
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        self.student, self.optimizer = fabric.setup(lighter, optimizer)
        self.teacher = fabric.setup_module(teacher).requires_grad_(False)
        self.best = copy_state(lighter)
        self.progress = Progress(num_batches=count_batches(data))
        self.progress.best_accuracy = evaluate(lighter, data.held_out).value
        self.start = time.monotonic()
        self.sum_loss, self.num_steps = 0.0, 0

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def share(self) -> float:
        """Of the epochs or of the minutes that has passed, whichever is more; also where the learning rate stands."""
        of_epochs = (self.progress.epoch + self.progress.batch / self.progress.num_batches) / self.recipe.epochs
        of_minutes = self.seconds() / (60 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return max(of_epochs, of_minutes)

    def is_over(self) -> bool:
        begun = self.progress.batch > 0  # broken off after its last step: still to be measured
        return self.progress.epoch >= self.recipe.epochs or (self.share() >= 1 and not begun)

    def epoch_batches(self):
        """The epoch's batches, drawn as its number says, from where the run stands."""
        torch.manual_seed(self.recipe.seed * 100_003 + self.progress.epoch)
        self.student.train()
        for index, batch in enumerate(self.data.train):
            if index >= self.progress.batch:
                yield batch

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """One step at the schedule's learning rate."""
        share = min(self.share(), 1.0)
        warm = min(1.0, share / self.recipe.warmup + 0.01)
        self.set_rate(self.progress.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share)))
        self.sum_loss, self.num_steps = self.sum_loss + self.update(inputs, labels), self.num_steps + 1
        self.progress.batch += 1
        self.progress.loss = self.sum_loss / self.num_steps
        self.progress.seconds, self.progress.share = self.seconds(), self.share()

    def update(self, inputs: Tensor, labels: Tensor) -> float:
        """One step of stochastic gradient descent; gives the loss before it."""
        loss = self.loss(inputs, labels)
        if not loss.isfinite():
            raise LightenError(
                f"recovery: the loss is no longer finite in epoch {self.progress.epoch + 1}, first seen in the layer "
                f"'{first_not_finite(self.lighter, inputs)}'; the last checkpoint is kept, try a lower learning rate"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.clip_gradients()
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The distillation loss of one batch."""
        inputs = inputs.to(self.fabric.device, memory_format=channels_last_of(inputs))
        with torch.no_grad():
            wanted = self.teacher(inputs)
        return distillation_loss(self.student(inputs), wanted, labels.to(wanted.device), self.recipe)

    def clip_gradients(self) -> None:
        """To the recipe's norm; a step with a gradient that isn't finite is never taken."""
        try:
            self.fabric.clip_gradients(self.student, self.optimizer, max_norm=self.recipe.clip_norm)
        except RuntimeError as error:
            bad = (n for n, p in self.lighter.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
            raise LightenError(
                f"recovery: the gradient of '{next(bad, 'the loss')}' is no longer finite in epoch "
                f"{self.progress.epoch + 1}; the last checkpoint is kept, try a lower learning rate"
            ) from error

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def finish_epoch(self) -> None:
        """Measure the held-out slice, and keep the weights where they are the best so far."""
        progress = self.progress
        accuracy = evaluate(self.lighter, self.data.held_out).value
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if accuracy >= progress.best_accuracy - (START_SLACK if progress.best_epoch == 0 else 0.0):
            progress.best_epoch, progress.best_accuracy = progress.epoch, accuracy
            self.best = copy_state(self.lighter)
        rate = self.optimizer.param_groups[0]["lr"]
        record = {"epoch": progress.epoch, "seconds": round(self.seconds(), 1), "loss": progress.loss}
        progress.history.append(record | {"held_out_accuracy": accuracy, "learning_rate": rate})
        self.sum_loss, self.num_steps = 0.0, 0

    def checkpoint(self) -> Checkpoint:
        progress = asdict(self.progress) | {"seconds": self.seconds()}
        return Checkpoint(copy_state(self.lighter), self.best, self.optimizer.state_dict(), progress)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where a checkpoint stood; its seconds count against `minutes`."""
        try:
            self.lighter.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise LightenError("cannot resume: the checkpoint belongs to another plan or network") from error
        self.best = checkpoint.best
        self.progress = Progress(**checkpoint.progress)
        self.start = time.monotonic() - self.progress.seconds


def count_batches(data: Data) -> int:
    """Batches in an epoch; raises LightenError where the training data don't tell, or hold none."""
    try:
        num_batches = len(data.train)
    except TypeError as error:
        raise LightenError(
            f"the training data of '{data.name}' must tell their number of batches: give them a len()"
        ) from error
    if not num_batches:
        raise LightenError(f"the training data of '{data.name}' hold less than one batch")
    return num_batches


def distillation_loss(logits: Tensor, wanted: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Softened divergence from the original, and cross-entropy where a label isn't -1 (Hinton et al. 2015)."""
    t = recipe.temperature
    soft = F.kl_div((logits / t).log_softmax(-1), (wanted / t).log_softmax(-1), reduction="batchmean", log_target=True)
    known = labels >= 0
    if not recipe.label_weight or not known.any():
        return t * t * soft
    hard = F.cross_entropy(logits, labels, ignore_index=-1)
    return (1 - recipe.label_weight) * t * t * soft + recipe.label_weight * hard


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, detached from further training."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def first_not_finite(model: nn.Module, inputs: Tensor) -> str:
    """The first layer, in the order of calls, whose weights or output hold a NaN or an infinity."""
    found: list[str] = []

    def look(name: str) -> Callable:
        def hook(module: nn.Module, _: tuple, output: Tensor) -> None:
            values = [output, *module.parameters(recurse=False)]
            if not found and not all(v.isfinite().all() for v in values if isinstance(v, Tensor)):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(n)) for n, m in model.named_modules() if runs_alone(m)]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "loss"


def runs_alone(module: nn.Module) -> bool:
    """Whether a module computes something itself: it has no parts, or it is trained as one dense layer."""
    return "forward" in vars(module) or not any(True for _ in module.children())
