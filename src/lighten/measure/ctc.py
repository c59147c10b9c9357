"""From a recogniser's logits to what it reads: connectionist temporal classification, whose class 0 is the blank."""

from torch import Tensor


def best_path(logits: Tensor) -> list[list[int]]:
    """The classes that each sample of (N, T, classes) reads: of each step the best, repetitions once, no blanks.

    Graves et al. 2006, section 3.2.
    """
    best = logits.argmax(-1)
    best[:, 1:] *= best[:, 1:] != best[:, :-1]  # a repetition becomes a blank
    return [without_blanks(row) for row in best.tolist()]


def without_blanks(classes: list[int]) -> list[int]:
    """The classes that aren't 0, which also continues the shorter labels of a batch."""
    return [n for n in classes if n]
