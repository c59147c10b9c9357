"""How often a network is right, and how far its answers lie from its teacher's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.data.batches import Loader
from lighten.errors import LightenError
from lighten.measure.ctc import best_path, without_blanks


@dataclass(frozen=True, slots=True)
class Accuracy:
    """value: per cent of `num_samples` that are right by `metric`."""

    metric: str
    value: float
    num_samples: int


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode comes back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def evaluate(model: nn.Module, loader: Loader) -> Accuracy:
    """Over all batches: top-1 accuracy of a classifier, lines read without a mistake (word accuracy) of a recogniser.

    Raises LightenError where there are no samples, no labels, labels beyond the outputs, or outputs not finite.
    """
    num_right = num_samples = 0
    metric = "top1"
    with evaluation_mode(model):
        for inputs, labels in loader:
            logits = model(inputs)
            check_answers(logits, labels)
            if logits.ndim == 3:
                metric = "word_accuracy"
                pairs = zip(best_path(logits), labels.tolist(), strict=True)
                num_right += sum(read == without_blanks(true) for read, true in pairs)
            else:
                num_right += int((logits.argmax(1) == labels).sum())
            num_samples += len(labels)
    if num_samples == 0:
        raise LightenError("cannot measure the accuracy: the data hold no samples")
    return Accuracy(metric, 100 * num_right / num_samples, num_samples)


def check_answers(logits: Tensor, labels: Tensor) -> None:
    """Raise LightenError unless each sample has finite logits and a label among them.

    A classifier gives (batch, classes) for labels (batch), a recogniser (batch, steps, classes) for (batch, length).
    """
    if logits.ndim != labels.ndim + 1 or logits.ndim not in (2, 3):
        raise LightenError(
            f"cannot measure the accuracy: the model gives {tuple(logits.shape)} for labels {tuple(labels.shape)}; "
            "a classifier gives (batch, classes), a recogniser of text lines (batch, steps, classes)"
        )
    if not logits.isfinite().all():
        raise LightenError("cannot measure the accuracy: the model's outputs aren't finite (NaN or infinity)")
    if labels.numel() and int(labels.min()) < 0:
        raise LightenError("cannot measure the accuracy: the data have no labels")
    if labels.numel() and int(labels.max()) >= logits.shape[-1]:
        raise LightenError(
            f"cannot measure the accuracy: the data have label {int(labels.max())}, "
            f"the model only {logits.shape[-1]} outputs"
        )


def teacher_logits(model: nn.Module, loader: Loader) -> list[Tensor]:
    """The model's output for each batch, to be compared with later; the inputs aren't kept."""
    with evaluation_mode(model):
        answers = [model(inputs) for inputs, _ in loader]
    return [logits.clone() for logits in answers]  # outside inference mode, so that autograd may use them


def divergence(model: nn.Module, loader: Loader, logits: list[Tensor], temperature: float = 1.0) -> float:
    """Mean T² KL(teacher ‖ student) per sample, in nats, of answers softened by the temperature T.

    logits: the teacher's, over the same loader in the same order.

    Raises LightenError where the batches aren't those of the logits or there are none.
    """
    total, num_samples = 0.0, 0
    with evaluation_mode(model):
        batches = iter(loader)
        for index, teacher in enumerate(logits):
            inputs, _ = next(batches, (None, None))
            if inputs is None or len(inputs) != len(teacher):
                raise LightenError(f"cannot compare with the teacher: batch {index} is not the one its logits are of")
            student = F.log_softmax(model(inputs).double() / temperature, -1)
            reference = F.log_softmax(teacher.double() / temperature, -1)
            total += float(F.kl_div(student, reference, reduction="sum", log_target=True))
            num_samples += len(inputs)
        if next(batches, None) is not None:
            raise LightenError(
                f"cannot compare with the teacher: it has {len(logits)} batches of logits, the data more"
            )
    if num_samples == 0:
        raise LightenError("cannot compare with the teacher: the data hold no samples")
    return temperature**2 * total / num_samples
