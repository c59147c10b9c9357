"""Nearest factors in a weighted norm: damped square roots, weighted SVD, and refinement by L-BFGS."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

DAMPING = 1e-3


def square_roots(m_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of m + damping and its inverse; m is positive semi-definite."""
    eye = torch.eye(m_BNN.shape[-1], dtype=m_BNN.dtype, device=m_BNN.device)
    mean_B = m_BNN.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    values, vectors = torch.linalg.eigh(m_BNN + (DAMPING * mean_B + 1e-20) * eye)
    root = values.clamp_min(1e-30).sqrt()[:, None, :]
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT


def weighted_svd(m_BMN: Tensor, left_BMM: Tensor, right_BNN: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """a_BMR, b_BRN with a @ b nearest to m in ‖left^½ (m − a b) right^½‖ (Eckart-Young in the whitened space)."""
    left, left_inverse = square_roots(left_BMM)
    right, right_inverse = square_roots(right_BNN)
    u, s, v = torch.linalg.svd(left @ m_BMN @ right, full_matrices=False)
    root = s[:, None, :rank].sqrt()
    return left_inverse @ (u[..., :rank] * root), (root.mT * v[:, :rank]) @ right_inverse


def quadratic_loss(delta_BOP: Tensor, c_BPP: Tensor, g_BOO: Tensor) -> Tensor:
    """½ Σ_B tr(G ΔW C ΔWᵀ): the Kronecker-factored Fisher's loss of a change ΔW (Martens & Grosse 2015, eq. 1)."""
    return 0.5 * ((g_BOO @ delta_BOP @ c_BPP) * delta_BOP).sum()


def refine(
    factors: tuple[Tensor, ...],
    kernel: Callable[[tuple[Tensor, ...]], Tensor],
    w_BOIK: Tensor,
    c_BPP: Tensor,
    g_BOO: Tensor,
    num_iterations: int,
) -> tuple[Tensor, ...]:
    """Factors with a smaller quadratic loss, by L-BFGS over all of them together; never worse than the start."""
    shapes = [f.shape for f in factors]
    sizes = [f.numel() for f in factors]
    w_BOP = w_BOIK.flatten(2)
    zero_loss = float(quadratic_loss(w_BOP, c_BPP, g_BOO)) or 1.0

    def unpack(flat: np.ndarray) -> tuple[Tensor, ...]:
        parts = torch.from_numpy(flat).to(w_BOIK.dtype).split(sizes)
        return tuple(p.view(s).requires_grad_() for p, s in zip(parts, shapes, strict=True))

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = unpack(flat)
        with torch.enable_grad():
            delta = kernel(point).flatten(2) - w_BOP
            force = (g_BOO @ delta.detach() @ c_BPP) / zero_loss
            gradients = torch.autograd.grad(delta, point, force)
        loss = 0.5 * float((force * delta.detach()).sum())
        return loss, torch.cat([g.flatten() for g in gradients]).double().numpy()

    flat = torch.cat([f.flatten() for f in factors]).double().numpy()
    found = minimize(
        loss_and_gradient, flat, jac=True, method="L-BFGS-B", options={"maxiter": num_iterations, "maxcor": 20}
    )
    return tuple(f.detach().clone() for f in unpack(found.x if found.fun <= loss_and_gradient(flat)[0] else flat))
