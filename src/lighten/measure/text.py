"""How much of the text a recogniser reads right."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lighten.data.batches import Loader
from lighten.errors import LightenError
from lighten.measure.accuracy import evaluation_mode
from lighten.measure.ctc import best_path, without_blanks


@dataclass(frozen=True, slots=True)
class TextAccuracy:
    """exact, ignoring_case_and_spaces: lines read right, in per cent.

    cer: character error rate, insertions, deletions and substitutions in per cent of the characters of all labels;
    case and spaces count.
    """

    exact: float
    ignoring_case_and_spaces: float
    cer: float
    num_samples: int


def evaluate_text(model: nn.Module, loader: Loader, alphabet: str) -> TextAccuracy:
    """Read all batches greedily and compare with their labels; raises LightenError where there are no samples."""
    read, true = read_texts(model, loader, alphabet)
    return TextAccuracy(
        word_accuracy(read, true),
        word_accuracy([fold(text) for text in read], [fold(text) for text in true]),
        character_error_rate(read, true),
        len(true),
    )


def read_texts(model: nn.Module, loader: Loader, alphabet: str) -> tuple[list[str], list[str]]:
    """What the model reads, and what the labels (N, L), continued with 0, say.

    Raises LightenError where the model's outputs aren't (batch, steps, classes of the alphabet and the blank), or not
    finite.
    """
    read: list[str] = []
    true: list[str] = []
    with evaluation_mode(model):
        for inputs, labels in loader:
            logits = model(inputs)
            if logits.ndim != 3 or logits.shape[-1] != len(alphabet) + 1:
                raise LightenError(
                    f"cannot read text: the model gives {tuple(logits.shape)}; needed is (batch, steps, "
                    f"{len(alphabet) + 1}), a class for each character of the alphabet and the blank"
                )
            if not logits.isfinite().all():
                raise LightenError("cannot read text: the model's outputs aren't finite (NaN or infinity)")
            read += [spell(row, alphabet) for row in best_path(logits)]
            true += [spell(without_blanks(row), alphabet) for row in labels.tolist()]
    return read, true


def spell(classes: Sequence[int], alphabet: str) -> str:
    """The characters of classes 1, 2, …"""
    return "".join(alphabet[n - 1] for n in classes)


def fold(text: str) -> str:
    """The text in one case and without spaces."""
    return "".join(text.split()).casefold()


def word_accuracy(read: Sequence[str], true: Sequence[str]) -> float:
    """Per cent of the lines that are read exactly; raises LightenError where there are none."""
    if not true:
        raise LightenError("cannot measure how much is read: the data hold no samples")
    return 100 * sum(a == b for a, b in zip(read, true, strict=True)) / len(true)


def character_error_rate(read: Sequence[str], true: Sequence[str]) -> float:
    """Levenshtein distances in per cent of the true characters; above 100 where too much is read."""
    from rapidfuzz.distance import Levenshtein

    num_errors = sum(Levenshtein.distance(a, b) for a, b in zip(read, true, strict=True))
    return 100 * num_errors / max(1, sum(map(len, true)))
