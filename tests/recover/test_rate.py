"""The trial that chooses a learning rate: the largest that doesn't raise the loss; the run stays as it was."""

import copy

import pytest
import torch

from lighten.recover.distil import Recipe, recovery
from lighten.recover.rate import gentle_rate


@pytest.fixture
def run(trained, small_data):
    """A recovery whose student is the teacher with some noise on its weights."""
    student = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    return recovery(student, trained, small_data, Recipe(), "32-true")


def test_a_rate_that_blows_up_is_passed_over(run):
    assert gentle_rate(run, rates=(1e4, 1e-3)) == 1e-3


def test_the_largest_gentle_rate_wins(run):
    assert gentle_rate(run, rates=(2e-3, 1e-3, 1e-4)) == 2e-3


def test_the_lowest_is_taken_where_none_is_gentle(run):
    assert gentle_rate(run, rates=(1e6, 1e5)) == 1e5


def test_the_run_stays_as_it_was(run):
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    gentle_rate(run, rates=(1e-2, 1e-3))
    after = run.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not run.optimizer.state and run.progress.batch == 0
    assert all(parameter.grad is None for parameter in run.model.parameters())
