"""Muon: steps of one size in every direction, by hand and in a network."""

import pytest
import torch
from torch import nn

from lighten.training.muon import NUM_ITERATIONS, RMS, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 4, 9), (2, 9, 4), (1, 1, 7)])
def test_singular_values_become_about_one(shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 37.0
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    found = orthogonalised(x)
    values = torch.linalg.svdvals(found)
    assert found.shape == x.shape and NUM_ITERATIONS == 5
    assert float(values.max()) < 1.3 and float(values[:, 0].min()) > 0.6
    assert float((found * (u @ v)).sum()) > 0.65 * float((u @ v).square().sum())


def test_a_batch_is_its_matrices_one_by_one():
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(orthogonalised(x), torch.cat([orthogonalised(part[None]) for part in x]))


def test_nothing_stays_nothing():
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


def test_the_first_step_of_a_kernel():
    weight = nn.Parameter(torch.randn(6, 4, 3, 3))
    before = weight.detach().clone()
    weight.grad = 1000 * torch.randn_like(weight)
    Muon([weight], lr=0.01, weight_decay=0.1).step()
    step = (before * (1 - 0.001) - weight.detach()) / 0.01
    expected = RMS * 36**0.5 * orthogonalised(weight.grad.flatten(1)[None])[0].view_as(weight)
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-4)
    assert float(step.square().mean().sqrt()) == pytest.approx(RMS, rel=0.25)


def test_the_first_step_of_a_vector_is_adams():
    vector = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    vector.grad = torch.tensor([5.0, -0.1, 0.0])
    Muon([vector], lr=0.01, weight_decay=0.5).step()
    torch.testing.assert_close(vector.detach(), torch.tensor([0.99, -1.99, 3.0]))


def test_what_has_no_gradient_stays():
    kernel = nn.Parameter(torch.ones(2, 3))
    Muon([kernel], lr=1.0).step()
    assert torch.equal(kernel.detach(), torch.ones(2, 3))


def train(model: nn.Module, optimizer: Muon, num_steps: int) -> float:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    for _ in range(num_steps):
        loss = (model(x) - x[:, :3].sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))


def test_it_learns():
    model = network()
    optimizer = Muon(model.parameters(), lr=0.02)
    first = train(model, optimizer, 1)
    assert train(model, optimizer, 60) < 0.2 * first


def test_it_goes_on_from_its_state():
    whole, broken = network(), network()
    train(whole, Muon(whole.parameters(), lr=0.02), 8)
    optimizer = Muon(broken.parameters(), lr=0.02)
    train(broken, optimizer, 5)
    resumed = Muon(broken.parameters(), lr=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    train(broken, resumed, 3)
    for one, other in zip(whole.parameters(), broken.parameters(), strict=True):
        torch.testing.assert_close(one, other)
