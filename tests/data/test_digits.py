"""scikit-learn's digits."""

import pytest
import torch

from lighten.data.digits import MEAN, STD, load_digits, read_digits
from lighten.measure.accuracy import evaluate
from lighten.models import build_model, input_shape


def keys(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_slices_share_no_image():
    data = load_digits()
    training, held_out, test = (keys(part.images) for part in (data.train, data.held_out, data.test))
    assert (len(data.train.images), len(data.held_out.images), len(data.test.images)) == (1137, 300, 360)
    assert len(training | held_out | test) == 1797
    assert keys(data.calibration.images) <= training
    assert len(data.calibration.images) == 512


def test_the_test_images_do_not_depend_on_the_seed():
    first, other = load_digits(seed=0), load_digits(seed=1)
    assert torch.equal(first.test.images, other.test.images)
    assert not torch.equal(first.held_out.images, other.held_out.images)


def test_images_are_the_built_in_models_input():
    inputs, labels = next(iter(load_digits().held_out))
    assert inputs.shape[1:] == input_shape("digits_vgg")
    assert set(labels.tolist()) == set(range(10))


def test_normalisation():
    images, labels = read_digits()
    pixels = images.float() / 255
    assert images.dtype == torch.uint8
    assert len(labels) == 1797
    assert float(pixels.mean()) == pytest.approx(MEAN[0], abs=1e-3)
    assert float(pixels.std()) == pytest.approx(STD[0], abs=1e-3)


def test_two_epochs_learn():
    data, model = load_digits(), build_model("digits_vgg:width=8")
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(2):
        for inputs, labels in data.train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    assert evaluate(model, data.held_out).value > 80
