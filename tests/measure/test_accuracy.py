"""Accuracy and divergence, by hand and on published weights."""

import math

import pytest
import torch
from torch import nn

from lighten.data import Batches
from lighten.data.cifar10 import IMAGENET_MEAN, IMAGENET_STD, read_sheets
from lighten.errors import LightenError
from lighten.measure.accuracy import Accuracy, divergence, evaluate, teacher_logits
from lighten.models import build_model, load_weights


class Shift(nn.Module):
    """Adds a constant to the first logit."""

    def __init__(self, amount: float = 0.0):
        super().__init__()
        self.amount = amount

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([self.amount] + [0.0] * (x.shape[1] - 1))


LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
BATCHES = [(LOGITS[:3], torch.tensor([0, 1, 0])), (LOGITS[3:], torch.tensor([0]))]


def test_accuracy_counts_samples_not_batches():
    assert evaluate(Shift(), BATCHES) == Accuracy("top1", 75.0, 4)
    assert evaluate(Shift(100.0), BATCHES).value == 75.0
    assert evaluate(Shift(-100.0), BATCHES).value == 25.0


def test_modes_are_restored_one_by_one():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9))
    model[0].eval()
    before = model[0].running_mean.clone()
    evaluate(model, BATCHES)
    assert [m.training for m in model.modules()] == [True, False, True]
    torch.testing.assert_close(model[0].running_mean, before)
    with pytest.raises(LightenError):
        evaluate(model, [])
    assert model.training


def test_dropout_is_off():
    assert evaluate(nn.Dropout(0.99), BATCHES).value == 75.0


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "cannot measure the accuracy: the data hold no samples"),
        ([(LOGITS, torch.full((4,), -1))], "cannot measure the accuracy: the data have no labels"),
        ([(LOGITS, torch.tensor([0, 0, 0, 3]))], "the data have label 3, the model only 3 outputs"),
        ([(LOGITS * math.nan, torch.zeros(4))], r"the model's outputs aren't finite \(NaN or infinity\)"),
        (
            [(torch.zeros(2, 3, 4), torch.zeros(2))],
            r"the model gives \(2, 3, 4\) for labels \(2,\); a classifier gives \(batch, classes\), a recogniser",
        ),
    ],
)
def test_accuracy_refused(batches, message):
    with pytest.raises(LightenError, match=message):
        evaluate(Shift() if batches and batches[0][0].ndim == 2 else nn.Identity(), batches)


def test_divergence_of_a_model_from_itself_is_zero():
    assert divergence(Shift(), BATCHES, teacher_logits(Shift(), BATCHES)) == pytest.approx(0, abs=1e-12)


def test_divergence_of_softened_answers():
    """T² KL of softmax(logits / T), by hand."""
    inputs, teacher = torch.eye(2), torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    p, q = (teacher / 4).softmax(1).double(), (inputs / 4).softmax(1).double()
    expected = 16 * float((p * (p / q).log()).sum()) / 2
    found = divergence(nn.Identity(), [(inputs, torch.zeros(2))], [teacher], temperature=4.0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_divergence_by_hand():
    student = Shift(1.5)
    p, q = LOGITS.double().softmax(1), student(LOGITS).double().softmax(1)
    expected = float((p * (p / q).log()).sum(1).mean())
    found = divergence(student, BATCHES, teacher_logits(Shift(), BATCHES))
    assert found == pytest.approx(expected, rel=1e-6)
    assert found != pytest.approx(float((q * (q / p).log()).sum(1).mean()), rel=1e-2)


def test_teacher_logits_may_serve_in_training():
    (first, _) = teacher_logits(Shift(), BATCHES)
    weight = torch.ones(3, requires_grad=True)
    (weight * first).sum().backward()
    torch.testing.assert_close(weight.grad, LOGITS[:3].sum(0))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (BATCHES[:1], "batch 1 is not the one its logits are of"),
        (BATCHES[::-1], "batch 0 is not the one its logits are of"),
        ([*BATCHES, BATCHES[0]], "it has 2 batches of logits, the data more"),
    ],
)
def test_divergence_needs_the_same_batches(batches, message):
    with pytest.raises(LightenError, match=f"cannot compare with the teacher: {message}"):
        divergence(Shift(), batches, teacher_logits(Shift(), BATCHES))


def test_divergence_of_nothing():
    with pytest.raises(LightenError, match="cannot compare with the teacher: the data hold no samples"):
        divergence(Shift(), [], [])


def test_published_resnet20_reproduces(shared_data):
    if not (shared_data / "cifar10").is_dir():
        pytest.skip(f"needs CIFAR-10 in '{shared_data}/cifar10'")
    model = build_model("resnet20")
    load_weights(model, shared_data / "resnet_cifar10" / "resnet20.safetensors")
    test = Batches(*read_sheets(shared_data / "cifar10", "test"), IMAGENET_MEAN, IMAGENET_STD, batch_size=500)
    assert evaluate(model, test) == Accuracy("top1", 91.73, 10_000)
