"""A user's datasets and loaders as `Data`."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lighten.data import Data, as_data
from lighten.errors import LightenError


def numbered(num_samples: int, num_classes: int = 4, start: int = 0) -> TensorDataset:
    """Samples whose input is their number, so that slices can be compared."""
    numbers = torch.arange(start, start + num_samples)
    return TensorDataset(numbers.float()[:, None], numbers % num_classes)


def numbers_in(loader) -> list[int]:
    return [int(x) for inputs, _ in loader for x in inputs[:, 0]]


class Samples(Dataset):
    """A map-style dataset over a list."""

    def __init__(self, samples: list):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.samples[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1), 0


def double(samples: list) -> tuple[Tensor, Tensor]:
    return 2 * torch.stack([x for x, _ in samples]), torch.tensor([int(y) for _, y in samples])


def test_one_dataset_is_cut_in_two():
    data = as_data(numbered(100), batch_size=10, num_calibration=20, name="mine")
    held_out, calibration = numbers_in(data.held_out), numbers_in(data.calibration)
    training = {n for _ in range(3) for n in numbers_in(data.train)}
    assert (data.name, data.num_classes, data.test) == ("mine", 4, None)
    assert (len(held_out), len(calibration), len(training)) == (10, 20, 90)
    assert training | set(held_out) == set(range(100))
    assert set(calibration) <= training
    assert numbers_in(data.held_out) == held_out
    assert numbers_in(data.train) != numbers_in(data.train)


def test_the_seed_decides():
    first, same, other = (numbers_in(as_data(numbered(100), seed=seed).held_out) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_train_and_test():
    data = as_data((numbered(40), numbered(7, start=100)), num_held_out=15)
    assert numbers_in(data.test) == list(range(100, 107))
    assert len(numbers_in(data.held_out)) == 15


def test_own_held_out_keeps_all_training_samples():
    data = as_data((numbered(20), numbered(5, start=50), None), batch_size=5)
    assert sorted(numbers_in(data.train)) == list(range(20))
    assert numbers_in(data.held_out) == list(range(50, 55))
    assert data.test is None


def test_loader_gives_batch_size_workers_and_collate():
    loader = DataLoader(numbered(30), batch_size=7, num_workers=1, collate_fn=double)
    data = as_data(loader)
    assert {data.train.num_workers, data.calibration.num_workers, data.held_out.num_workers} == {1}
    assert next(iter(data.train))[0].shape == (7, 1)
    assert all(n % 2 == 0 for n in numbers_in(data.calibration))
    assert data.num_classes == 4


def test_classes_may_be_given():
    assert as_data(numbered(30), num_classes=9).num_classes == 9


def test_classes_are_read_from_targets_without_reading_samples():
    class Guarded(Samples):
        def __getitem__(self, index: int):
            assert index == 0, "only the first sample may be read"
            return super().__getitem__(index)

    dataset = Guarded([(torch.zeros(1), 0)] * 3)
    dataset.targets = [0, 5, 2]
    assert as_data(dataset).num_classes == 6


def test_targets_that_are_transformed_are_read():
    dataset = Samples([(torch.zeros(1), 1)] * 5)
    dataset.targets, dataset.target_transform = [7] * 5, lambda label: 1
    assert as_data(dataset).num_classes == 2


def test_batches_of_training_are_complete_where_they_can_be():
    assert [len(y) for _, y in as_data(numbered(30), batch_size=10, num_held_out=5).train] == [10, 10]
    assert [len(y) for _, y in as_data(numbered(9), batch_size=10, num_held_out=5).train] == [4]


def test_training_samples_may_lack_labels():
    bare = Samples([torch.full((1,), float(n)) for n in range(12)])
    data = as_data((bare, numbered(4), numbered(4)), batch_size=4)
    inputs, labels = next(iter(data.train))
    assert inputs.shape == (4, 1)
    assert labels.tolist() == [-1] * 4
    assert sorted(numbers_in(data.calibration)) == list(range(12))
    assert data.num_classes == 4


BARE = Samples([torch.zeros(1)] * 5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (BARE, "the held_out samples have no labels; accuracy is measured on them and needs labels"),
        ((numbered(5), BARE), "the test samples have no labels"),
        ((numbered(5), BARE, None), "the held_out samples have no labels"),
        (
            3,
            "cannot use a value of type int as train data; needed is a Data, a Dataset or DataLoader, or a tuple ",
        ),
        ((torch.zeros(3), torch.zeros(3)), "cannot use a value of type Tensor as train data"),
        ((numbered(5),) * 4, "cannot use a tuple of 4 as data"),
        ((), "cannot use a tuple of 0 as data"),
        ((numbered(5), "x"), "cannot use a value of type str as test data"),
        (Stream(), "the train data Stream has no length; a dataset that can be indexed is needed"),
        (DataLoader(Stream()), "the train data Stream has no length"),
        ((numbered(5), Samples([])), "the test data Samples is empty"),
        (Samples([(object(), 0)]), "cannot batch the train samples; a transform to tensors is needed: "),
        (Samples([{"x": torch.zeros(1)}]), r"the train samples are not pairs \(input tensor, label\)"),
        (Samples([(torch.zeros(1), 0, 1)]), "the train samples are not pairs"),
        (DataLoader(numbered(5), batch_size=None), "the train samples are not pairs"),
        (Samples([(torch.zeros(1), 0.5)]), "the train labels must be whole numbers, one per sample, not torch.float64"),
        (Samples([(torch.zeros(1), torch.zeros(3, dtype=int))]), r"not torch.int64 of shape \(3,\)"),
        (numbered(1), "cannot hold 1 of 1 training samples out; at least one must be left"),
    ],
)
def test_refused(value, message):
    with pytest.raises(LightenError, match=message):
        as_data(value)


def test_too_many_held_out():
    with pytest.raises(LightenError, match="cannot hold 30 of 20 training samples out"):
        as_data(numbered(20), num_held_out=30)


def test_result_is_data():
    assert isinstance(as_data(numbered(20)), Data)
