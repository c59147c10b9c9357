"""One run of gradient descent: its schedule, its state, and one step at a time."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lighten.data.batches import Data
from lighten.errors import LightenError
from lighten.measure.accuracy import evaluate
from lighten.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of (network, inputs, labels)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a run ends, how fast it learns, how often it is kept; it ends at `epochs` or `minutes`, whichever is first.

    learning_rate: its peak after the warm-up, None for a choice by the job; it falls to zero as a cosine of the share
    of epochs or minutes that has passed. warmup: share of the run. clip_norm: of the gradient.
    precision: None lets the clock choose between bf16 and fp32.
    """

    epochs: int = 12
    minutes: float | None = None
    learning_rate: float | None = None
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

    def describe(self, epochs: int) -> str:
        """A few words for a progress bar."""
        left = self.seconds * (1 - self.share) / max(self.share, 1e-6)
        words = f"epoch {min(self.epoch + 1, epochs)}/{epochs} · loss {self.loss:.4f}"
        if self.history:
            words += f" · held-out {self.history[-1]['held_out_accuracy']:.2f} %"
        return f"{words} · {left / 60:.1f} min left"


class Run:
    """The state of one run: everything that a checkpoint holds, and one step at a time.

    optimizer: of the model's parameters; a group's `scale` multiplies the schedule's learning rate.
    start_slack: points of held-out accuracy by which an epoch may be worse than the start and still replace it.
    average_decay: of the moving average of the weights that is measured and kept in their place; 0 for none.
    job: what errors call the run.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        schedule: Schedule,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        fabric: Fabric,
        *,
        start_slack: float = 0.0,
        average_decay: float = 0.0,
        job: str = "training",
    ):
        self.model, self.data, self.schedule, self.loss_of, self.job = model, data, schedule, loss, job
        self.fabric, self.start_slack = fabric, start_slack
        model.to(memory_format=torch.channels_last)
        self.network, self.optimizer = fabric.setup(model, optimizer)
        self.average = averaged(model, average_decay) if average_decay else None
        self.kept = self.average.module if self.average else model
        self.best = copy_state(self.kept)
        self.progress = Progress(num_batches=count_batches(data))
        self.progress.best_accuracy = evaluate(self.kept, data.held_out).value
        self.start = time.monotonic()
        self.sum_loss, self.num_steps = 0.0, 0

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def share(self) -> float:
        """Of the epochs or of the minutes that has passed, whichever is more; also where the learning rate stands."""
        of_epochs = (self.progress.epoch + self.progress.batch / self.progress.num_batches) / self.schedule.epochs
        of_minutes = self.seconds() / (60 * self.schedule.minutes) if self.schedule.minutes else 0.0
        return max(of_epochs, of_minutes)

    def is_over(self) -> bool:
        begun = self.progress.batch > 0  # broken off after its last step: still to be measured
        return self.progress.epoch >= self.schedule.epochs or (self.share() >= 1 and not begun)

    def epoch_batches(self):
        """The epoch's batches, drawn as its number says, from where the run stands."""
        torch.manual_seed(self.schedule.seed * 100_003 + self.progress.epoch)
        self.network.train()
        for index, batch in enumerate(self.data.train):
            if index >= self.progress.batch:
                yield batch

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """One step at the schedule's learning rate."""
        share = min(self.share(), 1.0)
        warm = min(1.0, share / self.schedule.warmup + 0.01)
        self.set_rate(self.progress.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share)))
        self.sum_loss, self.num_steps = self.sum_loss + self.update(inputs, labels), self.num_steps + 1
        if self.average:
            self.average.update_parameters(self.model)
        self.progress.batch += 1
        self.progress.loss = self.sum_loss / self.num_steps
        self.progress.seconds, self.progress.share = self.seconds(), self.share()

    def update(self, inputs: Tensor, labels: Tensor) -> float:
        """One step of gradient descent; gives the loss before it."""
        loss = self.loss(inputs, labels)
        if not loss.isfinite():
            raise LightenError(
                f"{self.job}: the loss is no longer finite in epoch {self.progress.epoch + 1}, first seen in the layer "
                f"'{first_not_finite(self.model, inputs)}'; the last checkpoint is kept, try a lower learning rate"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.clip_gradients()
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch."""
        device = self.fabric.device
        inputs = inputs.to(device, memory_format=channels_last_of(inputs))
        return self.loss_of(self.network, inputs, labels.to(device))

    def clip_gradients(self) -> None:
        """To the schedule's norm; a step with a gradient that isn't finite is never taken."""
        try:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=self.schedule.clip_norm)
        except RuntimeError as error:
            bad = (n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
            raise LightenError(
                f"{self.job}: the gradient of '{next(bad, 'the loss')}' is no longer finite in epoch "
                f"{self.progress.epoch + 1}; the last checkpoint is kept, try a lower learning rate"
            ) from error

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)

    def finish_epoch(self) -> None:
        """Measure the held-out slice, and keep the weights where they are the best so far."""
        progress = self.progress
        accuracy = evaluate(self.kept, self.data.held_out).value
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if accuracy >= progress.best_accuracy - (self.start_slack if progress.best_epoch == 0 else 0.0):
            progress.best_epoch, progress.best_accuracy = progress.epoch, accuracy
            self.best = copy_state(self.kept)
        rate = self.optimizer.param_groups[0]["lr"]
        record = {"epoch": progress.epoch, "seconds": round(self.seconds(), 1), "loss": progress.loss}
        progress.history.append(record | {"held_out_accuracy": accuracy, "learning_rate": rate})
        self.sum_loss, self.num_steps = 0.0, 0

    def checkpoint(self) -> Checkpoint:
        progress = asdict(self.progress) | {"seconds": self.seconds()}
        average = copy_state(self.average) if self.average else None
        return Checkpoint(copy_state(self.model), self.best, self.optimizer.state_dict(), progress, average)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where a checkpoint stood; its seconds count against `minutes`."""
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer)
            if self.average:
                self.average.load_state_dict(checkpoint.average or {})
        except (RuntimeError, ValueError, KeyError) as error:
            raise LightenError(f"cannot resume: the checkpoint belongs to another {self.job} or network") from error
        self.best = checkpoint.best
        self.progress = Progress(**checkpoint.progress)
        self.start = time.monotonic() - self.progress.seconds


def finish(run: Run, checkpoint_path: Path | None, on_progress: Callable[[Progress], None]) -> None:
    """Epochs until the schedule is over, with checkpoints in between; the model ends with its best weights."""
    saved_at = time.monotonic()
    while not run.is_over():
        for batch in run.epoch_batches():
            run.step(*batch)
            on_progress(run.progress)
            if checkpoint_path and time.monotonic() - saved_at > 60 * run.schedule.checkpoint_minutes:
                save_checkpoint(checkpoint_path, run.checkpoint())
                saved_at = time.monotonic()
            if run.share() >= 1:
                break
        run.finish_epoch()
        on_progress(run.progress)
    if checkpoint_path and run.progress.history:
        save_checkpoint(checkpoint_path, run.checkpoint())
    run.model.load_state_dict(run.best)


def resumed(run: Run, checkpoint_path: Path | None) -> bool:
    """Whether the run now stands where a checkpoint stood; False where there is none."""
    found = checkpoint_path is not None and checkpoint_path.exists()
    if found:
        run.restore(load_checkpoint(checkpoint_path))
    return found


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and statistics; it forgets the start sooner than `decay` alone would."""

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        count = float(num_averaged)
        share = 1 - min(decay, (1 + count) / (10 + count))
        for mean, value in zip(average, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


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


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, detached from further training."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def channels_last_of(inputs: Tensor) -> torch.memory_format:
    """The memory format that image batches are fast in; other inputs stay as they are."""
    return torch.channels_last if inputs.ndim == 4 else torch.contiguous_format


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
