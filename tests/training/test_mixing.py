"""Mixed images have mixed labels, and erased ones a rectangle of zeros."""

import pytest
import torch

from lighten.training.mixing import mixing

LABELS = torch.arange(8) % 3


def test_nothing_is_done_by_default():
    inputs = torch.rand(8, 3, 12, 12)
    mixed, labels = mixing(5, 0.0, 0.0, 0.0)(inputs, LABELS)
    assert mixed is inputs and labels is LABELS


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_labels_are_the_shares_of_the_images(mixup, cutmix):
    inputs = LABELS.float()[:, None, None, None].expand(8, 3, 12, 12).contiguous()
    values = torch.arange(3.0)
    for _ in range(5):
        mixed, labels = mixing(5, mixup, cutmix, 0.0)(inputs, LABELS)
        assert labels.shape == (8, 5) and torch.allclose(labels.sum(1), torch.ones(8))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), labels[:, :3] @ values)


def test_each_image_loses_a_rectangle_of_its_own():
    inputs = torch.ones(8, 1, 16, 16)
    erased, labels = mixing(5, 0.0, 0.0, 1.0)(inputs, LABELS)
    assert labels is LABELS and bool((inputs == 1).all())
    holes = [tuple((image[0] == 0).nonzero().flatten().tolist()) for image in erased]
    assert len(set(holes)) > 4
    for image in erased[:, 0] == 0:
        rows, columns = image.any(1), image.any(0)
        assert 0 < int(image.sum()) == int(rows.sum()) * int(columns.sum())
