"""The nearest factors in a weighted norm are the nearest, and refinement only ever improves."""

import pytest
import torch
from torch import Tensor

from lighten.rewrites.algebra import DAMPING, quadratic_loss, refine, square_roots, weighted_svd


def moment(num: int, size: int) -> Tensor:
    root = torch.randn(num, size, size + 3)
    return root @ root.mT / size


def damped(m_BNN: Tensor) -> Tensor:
    return m_BNN + DAMPING * m_BNN.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None] * torch.eye(m_BNN.shape[-1])


@pytest.mark.parametrize("size", [1, 2, 7])
def test_roots_square_to_the_damped_matrix_and_its_inverse(size):
    m = moment(3, size)
    root, inverse = square_roots(m)
    torch.testing.assert_close(root @ root, damped(m), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(root @ inverse, torch.eye(size).expand(3, -1, -1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(root, root.mT, rtol=1e-4, atol=1e-4)


def test_roots_of_a_singular_matrix_are_finite():
    column = torch.randn(1, 5, 1)
    for m in (column @ column.mT, torch.zeros(1, 5, 5)):
        assert all(root.isfinite().all() for root in square_roots(m))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_weighted_svd_reaches_the_bound_of_eckart_and_young(rank):
    m, left, right = torch.randn(2, 6, 5), moment(2, 6), moment(2, 5)
    a, b = weighted_svd(m, left, right, rank)
    assert a.shape == (2, 6, rank) and b.shape == (2, rank, 5)
    whiten = square_roots(left)[0], square_roots(right)[0]
    tail = torch.linalg.svdvals(whiten[0] @ m @ whiten[1])[:, rank:].square().sum()
    torch.testing.assert_close(2 * quadratic_loss(m - a @ b, damped(right), damped(left)), tail, rtol=1e-3, atol=1e-5)


def test_the_weighted_svd_is_better_than_its_neighbours_and_the_plain_svd():
    m, left, right = torch.randn(1, 6, 5), moment(1, 6), moment(1, 5)

    def loss(a: Tensor, b: Tensor) -> float:
        return float(quadratic_loss(m - a @ b, damped(right), damped(left)))

    a, b = weighted_svd(m, left, right, 2)
    u, s, v = torch.linalg.svd(m)
    assert loss(a, b) < 0.99 * loss(u[..., :2] * s[:, None, :2], v[:, :2])
    for scale in (1e-2, 0.1, 1.0):
        for _ in range(20):
            assert loss(a, b) < loss(a + scale * torch.randn_like(a), b + scale * torch.randn_like(b))


def test_the_weighted_svd_is_exact_at_full_rank():
    m = torch.randn(2, 4, 7)
    a, b = weighted_svd(m, moment(2, 4), moment(2, 7), 4)
    torch.testing.assert_close(a @ b, m, rtol=1e-3, atol=1e-3)


def test_the_quadratic_loss_is_that_of_the_loops():
    delta, c, g = torch.randn(2, 3, 4), moment(2, 4), moment(2, 3)
    wanted = 0.0
    for n in range(2):
        for o in range(3):
            for p in range(3):
                for i in range(4):
                    for j in range(4):
                        wanted += 0.5 * float(g[n, o, p] * delta[n, p, i] * c[n, i, j] * delta[n, o, j])
    assert float(quadratic_loss(delta, c, g)) == pytest.approx(wanted, rel=1e-4)


def product(factors: tuple[Tensor, ...]) -> Tensor:
    return torch.einsum("bor,bri->boi", *factors)[..., None]


@pytest.mark.parametrize("num_iterations", [1, 3, 50])
def test_refinement_improves_a_bad_start_and_nears_the_optimum(num_iterations):
    w, c, g = torch.randn(2, 6, 5, 1), damped(moment(2, 5)), damped(moment(2, 6))
    start = torch.randn(2, 6, 2), torch.randn(2, 2, 5)

    def loss(factors: tuple[Tensor, ...]) -> float:
        return float(quadratic_loss((product(factors) - w).flatten(2), c, g))

    refined = refine(start, product, w, c, g, num_iterations)
    assert [f.shape for f in refined] == [f.shape for f in start]
    assert not any(f.requires_grad for f in refined)
    assert loss(refined) < 0.9 * loss(start)
    if num_iterations == 50:
        assert loss(refined) == pytest.approx(loss(weighted_svd(w[..., 0], g, c, 2)), rel=0.05)


def test_refinement_never_makes_a_start_worse():
    w, c, g = torch.randn(1, 6, 5, 1), damped(moment(1, 5)), damped(moment(1, 6))
    best = weighted_svd(w[..., 0], g, c, 2)
    for start in (best, (torch.zeros(1, 6, 2), torch.zeros(1, 2, 5)), tuple(1e3 * f for f in best)):
        before, after = (
            float(quadratic_loss((product(f) - w).flatten(2), c, g))
            for f in (start, refine(start, product, w, c, g, 4))
        )
        assert after <= before * (1 + 1e-5)


def test_refinement_of_a_kernel_of_zeros_stays_finite():
    zeros = torch.zeros(1, 3, 4, 1)
    refined = refine((torch.randn(1, 3, 1), torch.randn(1, 1, 4)), product, zeros, moment(1, 4), moment(1, 3), 5)
    assert all(f.isfinite().all() for f in refined)
