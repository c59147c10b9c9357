"""Greedy decoding, and how much is read right."""

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.measure.accuracy import evaluate
from lighten.measure.ctc import best_path
from lighten.measure.text import (
    TextAccuracy,
    character_error_rate,
    evaluate_text,
    fold,
    read_texts,
    spell,
    word_accuracy,
)

ALPHABET = "abB "


def logits_of(*paths: list[int]) -> torch.Tensor:
    """Logits whose best classes are these."""
    return 3 * torch.nn.functional.one_hot(torch.tensor(paths), len(ALPHABET) + 1).float() - 1


class Reader(nn.Module):
    """Reads what it is given: its input holds the best classes."""

    def forward(self, x):
        return logits_of(*x.tolist())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([1, 1, 2, 2], "ab"),
        ([1, 0, 1, 1], "aa"),
        ([0, 0, 0, 0], ""),
        ([0, 3, 4, 3], "B B"),
        ([2, 2, 2, 0], "b"),
        ([1, 2, 1, 2], "abab"),
    ],
)
def test_decoding(path, text):
    assert [spell(row, ALPHABET) for row in best_path(logits_of(path, [1, 1, 1, 1]))] == [text, "a"]


def test_evaluation():
    batches = [
        (torch.tensor([[1, 0, 2, 2], [3, 4, 1, 0]]), torch.tensor([[1, 2, 0], [2, 1, 0]])),  # "ab" ✓, "B a" for "ba"
        (torch.tensor([[1, 1, 1]]), torch.tensor([[2, 2]])),  # "a" for "bb"
        (torch.tensor([[0, 0, 0]]), torch.tensor([[1, 1]])),  # "" for "aa"
    ]
    found = evaluate_text(Reader(), batches, ALPHABET)
    assert found == TextAccuracy(exact=25, ignoring_case_and_spaces=50, cer=75, num_samples=4)
    lines = evaluate(Reader(), batches)
    assert (lines.metric, lines.value, lines.num_samples) == ("word_accuracy", 25, 4)


def test_fold():
    assert fold(" To tAL\u00a05 ") == "total5"
    assert fold("0.5") != fold("05")


def test_word_accuracy():
    assert word_accuracy(["a", "b", "c"], ["a", "B", "c"]) == pytest.approx(200 / 3)


def test_character_error_rate():
    assert character_error_rate(["kitten", "", "xy"], ["sitting", "ab", ""]) == pytest.approx(100 * 7 / 9)


def test_training_mode_comes_back():
    model = Reader().train()
    read_texts(model, [(torch.tensor([[1]]), torch.tensor([[1]]))], ALPHABET)
    assert model.training


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 5), r"the model gives \(2, 5\); needed is \(batch, steps, 5\), a class for each character"),
        (torch.zeros(2, 3, 37), r"the model gives \(2, 3, 37\); needed is \(batch, steps, 5\)"),
        (torch.full((2, 3, 5), float("nan")), r"the model's outputs aren't finite"),
    ],
)
def test_outputs_of_no_use(logits, message):
    model = nn.Identity()
    with pytest.raises(LightenError, match=f"cannot read text: {message}"):
        read_texts(model, [(logits, torch.zeros(2, 1))], ALPHABET)


def test_no_samples():
    with pytest.raises(LightenError, match="the data hold no samples"):
        evaluate_text(Reader(), [], ALPHABET)
