"""What the text that names data means."""

import sys

import pytest
import torch

from lighten.data import Data, as_data, load_data
from lighten.errors import LightenError

OWN = """
import torch
from torch.utils.data import TensorDataset
from lighten.data import load_data
from lighten.errors import LightenError

def blobs(num_samples=50, num_classes=3):
    return TensorDataset(torch.randn(num_samples, 1, 4, 4), torch.arange(num_samples) % num_classes)

def few_digits():
    return load_data("digits:batch_size=32")

def number():
    return 3

def fails():
    raise RuntimeError("the disk is on fire\\nand more")

def refuses():
    raise LightenError("no such year")
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_data", None)


def test_users_callable_gives_a_dataset():
    data = load_data("own_data:blobs:num_samples=30", num_classes=2)
    assert data.name == "own_data:blobs:num_classes=2,num_samples=30"
    assert data.num_classes == 2
    assert data.test is None


def test_users_callable_gives_data():
    data = load_data("own_data:few_digits")
    assert data.name == "own_data:few_digits"
    assert data.train.batch_size == 32


def test_name_gives_the_same_data_again():
    data = load_data("digits", seed=3, batch_size=10)
    assert data.name == "digits:batch_size=10,seed=3"
    again = load_data(data.name)
    assert torch.equal(again.held_out.images, data.held_out.images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "there are no data 'digit'; did you mean digits?"),
        ("zzz", "there are no data 'zzz'; known are cifar10, digits, images, lines, and package.module:callable"),
        ("digits:/tmp", "'digits' takes no path, but '/tmp' was given"),
        ("images", "'images' needs a path: images:PATH"),
        ("cifar10:", "'cifar10' needs a path: cifar10:PATH"),
        ("images:/no/such/folder", "there is no '/no/such/folder', which 'images:/no/such/folder' should be read from"),
        ("digits:size=3", "'digits' has no option 'size'; it takes batch_size, num_held_out, num_calibration, seed"),
        ("images:/tmp:sizes=3", "'images' has no option 'sizes'; it takes size, norm"),
        ("own_data:blob", "cannot load the data 'own_data:blob': 'own_data' has no 'blob'; did you mean blobs?"),
        ("own_nothing:f", "cannot load the data 'own_nothing:f': there is no module 'own_nothing'"),
        ("own_data:blobs:x=3", "'own_data:blobs' has no option 'x'; it takes num_samples, num_classes"),
        ("own_data:number", "cannot use a value of type int as train data; needed is a Data, a Dataset or DataLoader"),
        ("own_data:fails", "the data 'own_data:fails' fail to load: the disk is on fire$"),
        ("own_data:refuses", "^no such year$"),
    ],
)
def test_refused_text(text, message):
    with pytest.raises(LightenError, match=message):
        load_data(text)


def test_cifar10_folder_without_cifar10(tmp_path):
    with pytest.raises(LightenError, match="no CIFAR-10 in "):
        load_data(f"cifar10:{tmp_path}")


def test_data_passes_unchanged():
    data = Data("own", [], [], [], None, 3)
    assert as_data(data) is data
