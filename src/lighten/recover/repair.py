"""Repair without gradients: each layer is fitted anew to what the *new* network feeds it.

A layer of the new network reads x' where the original read x and wrote y = W x. The kernel that brings x' nearest to
y is W* = W + E[(y − W x') x'ᵀ] (E[x' x'ᵀ] + λ)⁻¹, and since E‖y − Ŵ x'‖²_G = ‖W* − Ŵ‖² in the norm of G and
E[x' x'ᵀ], up to a constant, the factors are refined towards W* as they were first towards W. Layers are taken in
order, so each one also mends what the ones before it left (as in Zhang et al. 2015, section 3.3, asymmetric case).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lighten.measure.moments import Moments, patches
from lighten.plan.plan import Choice
from lighten.rewrites import REWRITES
from lighten.rewrites.algebra import refine
from lighten.rewrites.base import Factors, kernel_of, shape_of

NUM_ITERATIONS = 30
RIDGE = 1e-2


@dataclass(frozen=True, slots=True)
class Repair:
    """Held-out divergence from the original before and after, and the sites whose new fit was kept."""

    before: float
    after: float
    kept: tuple[str, ...]


class Reached(Exception):
    """Ends a forward pass at the layer whose input was wanted."""


@torch.no_grad()
def repair(
    original: nn.Module,
    lighter: nn.Module,
    choices: Sequence[Choice],
    factors: dict[str, Factors],
    moments: dict[str, Moments],
    batches: Sequence[Tensor],
    held_out_loss: Callable[[nn.Module], float],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Repair:
    """Refit the chosen sites of `lighter` in place, in the order of `choices`, which is the network's own.

    batches: inputs (N, …), kept in memory. A new fit stays only where the held-out loss falls.
    """
    outputs = original_outputs(original, [choice.site for choice in choices], batches)
    before = loss = held_out_loss(lighter)
    kept = []
    for done, choice in enumerate(choices, 1):
        layer, rewrite = original.get_submodule(choice.site), REWRITES[choice.rewrite]
        shape, module = shape_of(layer), lighter.get_submodule(choice.site)
        c_BPP, target_BOIK = best_kernel(lighter, module, layer, batches, outputs.pop(choice.site))
        new = refine(
            factors[choice.site],
            lambda f, rewrite=rewrite, shape=shape, choice=choice: rewrite.kernel(f, shape, choice.options),
            target_BOIK,
            c_BPP,
            moments[choice.site].g_BOO,
            NUM_ITERATIONS,
        )
        old_state = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(rewrite.build(layer, choice.options, new).state_dict())
        new_loss = held_out_loss(lighter)
        if new_loss < loss:
            loss, factors[choice.site] = new_loss, new
            kept.append(choice.site)
        else:
            module.load_state_dict(old_state)
        on_progress(done, len(choices))
    return Repair(before, loss, tuple(kept))


def original_outputs(original: nn.Module, names: Sequence[str], batches: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """{site: y_BON per batch}: what the original writes at the same drawn positions that `best_kernel` reads."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Callable:
        def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            x_BPN = drawn_patches(layer, inputs[0], len(found[name]))
            found[name].append(kernel_of(layer).flatten(2) @ x_BPN)

        return hook

    handles = [original.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        for inputs in batches:
            original(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def drawn_patches(layer: nn.Module, x: Tensor, batch_index: int) -> Tensor:
    """Patches at positions that depend on the batch alone, so that two networks are read at the same places."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(batch_index)
        return patches(layer, x, shape_of(layer).num_groups)


def best_kernel(
    lighter: nn.Module, module: nn.Module, layer: nn.Module, batches: Sequence[Tensor], outputs: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """E[x' x'ᵀ] of what the new network feeds this site, and the kernel W* that brings it nearest to y."""
    w_BOIK = kernel_of(layer)
    c_BPP = torch.zeros(w_BOIK.shape[0], w_BOIK[0, 0].numel(), w_BOIK[0, 0].numel())
    residual_BOP = torch.zeros_like(w_BOIK.flatten(2))
    num_columns = 0

    def read(_: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal c_BPP, residual_BOP, num_columns
        x_BPN = drawn_patches(layer, inputs[0], index)
        c_BPP += x_BPN @ x_BPN.mT
        residual_BOP += (outputs[index] - w_BOIK.flatten(2) @ x_BPN) @ x_BPN.mT
        num_columns += x_BPN.shape[-1]
        raise Reached

    handle = module.register_forward_pre_hook(read)
    try:
        for index, inputs in enumerate(batches):  # noqa: B007  the hook reads it
            try:
                lighter(inputs)
            except Reached:
                continue
    finally:
        handle.remove()
    c_BPP, residual_BOP = c_BPP / num_columns, residual_BOP / num_columns
    ridge = RIDGE * c_BPP.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None] * torch.eye(c_BPP.shape[-1])
    change = torch.linalg.solve(c_BPP + ridge, residual_BOP.mT).mT
    return c_BPP, w_BOIK + change.view_as(w_BOIK)
