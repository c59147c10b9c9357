"""A user's PyTorch datasets and loaders as `Data`: what the job may train on is cut in two, by seed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from lighten.data.batches import Data
from lighten.errors import LightenError

NEEDED = "a Data, a Dataset or DataLoader, or a tuple (train, test) or (train, held_out, test) of them"


@dataclass(frozen=True)
class Source:
    """A dataset that can be indexed, and how its samples become batches (inputs, labels)."""

    dataset: Any
    batch_size: int
    num_workers: int = 0
    collate: Callable[[list[Any]], Any] = default_collate

    def loader(self, chosen: Tensor | None = None, shuffle: bool = False) -> DataLoader[Any]:
        """Batches over the samples with these indices, or all; shuffled ones leave an incomplete last batch out."""
        part = self.dataset if chosen is None else Subset(self.dataset, chosen.tolist())
        return DataLoader(
            part,
            self.batch_size,
            shuffle,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            drop_last=shuffle and len(part) >= self.batch_size,
        )


@dataclass(frozen=True)
class Unlabelled:
    """Collates samples that have no labels; -1 stands for each."""

    collate: Callable[[list[Any]], Tensor]

    def __call__(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        return self.collate(samples), torch.full((len(samples),), -1)


def as_data(
    value: object,
    *,
    num_classes: int | None = None,
    name: str = "data",
    batch_size: int = 128,
    num_held_out: int | None = None,
    num_calibration: int = 2048,
    seed: int = 0,
) -> Data:
    """`Data` from what a user has: a Data, a Dataset or DataLoader, or a tuple of them.

    Tuples are (train, test) or (train, held_out, test), whose test may be None. Without a held-out set of its own,
    `num_held_out` training samples (a tenth, 5,000 at most) are kept apart; they and the calibration samples pass
    through the training set's own transforms. A DataLoader gives its dataset, batch size, workers and collate_fn.
    Training samples may lack labels where held_out is given; labels are then -1.
    num_classes: the largest label + 1 unless given. Raises LightenError for anything else.
    """
    if isinstance(value, Data):
        return value
    parts = value if isinstance(value, tuple) else (value,)
    if not 1 <= len(parts) <= 3:
        raise LightenError(f"cannot use a tuple of {len(parts)} as data; needed is {NEEDED}")
    train = source_of(parts[0], "train", batch_size)
    test = source_of(parts[-1], "test", batch_size) if len(parts) > 1 and parts[-1] is not None else None
    own = source_of(parts[1], "held_out", batch_size) if len(parts) == 3 else None
    for source, role in ((own or train, "held_out"), (test, "test")):
        if source is not None and isinstance(source.collate, Unlabelled):
            raise LightenError(f"the {role} samples have no labels; accuracy is measured on them and needs labels")
    size = len(train.dataset)
    training, calibration, held_out = split_indices(size, 0 if own else num_held_out, num_calibration, seed)
    return Data(
        name,
        train.loader(training, shuffle=True),
        train.loader(calibration),
        own.loader() if own else train.loader(held_out),
        test.loader() if test else None,
        num_classes or int(labels_of(own if own else train).max()) + 1,
    )


def split_indices(
    num_samples: int, num_held_out: int | None, num_calibration: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices for training, calibration (some of the training ones) and held out.

    num_held_out: a tenth, 5,000 at most, where None. Raises LightenError where too few samples are left to train on.
    """
    count = min(5000, max(1, num_samples // 10)) if num_held_out is None else num_held_out
    if not 0 <= count < num_samples:
        raise LightenError(f"cannot hold {count} of {num_samples} training samples out; at least one must be left")
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    training = order[count:]
    return training, training[:num_calibration], order[:count]


def source_of(value: object, role: str, batch_size: int) -> Source:
    """A dataset or loader as a checked source; raises LightenError where its batches aren't (inputs, labels)."""
    if isinstance(value, DataLoader):
        size = value.batch_size or getattr(value.batch_sampler, "batch_size", None) or batch_size
        source = Source(value.dataset, size, value.num_workers, value.collate_fn)
    elif isinstance(value, Dataset):
        source = Source(value, batch_size)
    else:
        raise LightenError(f"cannot use a value of type {type(value).__name__} as {role} data; needed is {NEEDED}")
    kind = type(source.dataset).__name__
    if isinstance(source.dataset, IterableDataset) or not hasattr(source.dataset, "__len__"):
        raise LightenError(f"the {role} data {kind} has no length; a dataset that can be indexed is needed")
    if len(source.dataset) == 0:
        raise LightenError(f"the {role} data {kind} is empty")
    return with_labels(source, role)


def with_labels(source: Source, role: str) -> Source:
    """The same source, with labels of -1 where it gives bare inputs; checked on a batch of its first sample."""
    try:
        batch = source.collate([source.dataset[0]])
    except TypeError as error:  # the default collate meets an image or the like
        reason = str(error).partition(";")[0]
        raise LightenError(f"cannot batch the {role} samples; a transform to tensors is needed: {reason}") from error
    if isinstance(batch, Tensor):
        return Source(source.dataset, source.batch_size, source.num_workers, Unlabelled(source.collate))
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch)):
        raise LightenError(f"the {role} samples are not pairs (input tensor, label)")
    labels = batch[1]
    if labels.ndim != 1 or labels.is_floating_point():
        raise LightenError(
            f"the {role} labels must be whole numbers, one per sample, "
            f"not {labels.dtype} of shape {tuple(labels.shape[1:])}"
        )
    return source


def labels_of(source: Source) -> Tensor:
    """(N,) labels: from the dataset where it lists them, else by reading every sample once."""
    dataset = source.dataset
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    if hasattr(dataset, "targets") and getattr(dataset, "target_transform", None) is None:
        return torch.as_tensor(dataset.targets)
    return torch.cat([labels for _, labels in source.loader()])
