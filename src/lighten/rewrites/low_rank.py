"""Channel low-rank: the whole window to `rank` channels, then 1×1 (Zhang et al. 2015, section 3.1).

W as O × (I·K) ≈ u v; exact at rank = min(O, I·K). The one rewrite that also serves 1×1 and linear layers.
"""

import torch
from torch import Tensor, nn

from lighten.rewrites.algebra import weighted_svd
from lighten.rewrites.base import Factors, Layer, Options, Shape, all_axes, convolution, fill, rank_grid, shape_of


class LowRank:
    """The window to few channels, then pointwise. Factors: v_BRIK, u_BOR; the weighted SVD is the optimum."""

    name = "low-rank"

    def refuse(self, shape: Shape) -> str | None:
        if min(shape.num_outputs, shape.num_inputs * shape.num_taps) < 4:
            return "it has too few channels for a lower rank to pay"
        return None

    def grid(self, shape: Shape) -> list[Options]:
        inputs = shape.num_inputs * shape.num_taps
        largest = (shape.num_outputs * inputs - 1) // (shape.num_outputs + inputs)
        return [{"rank": rank} for rank in rank_grid(max(1, min(largest, shape.num_outputs - 1)))]

    def forms(self, shape: Shape, options: Options) -> list[str]:
        return ["plain"]

    def check(self, shape: Shape, options: Options) -> str | None:
        largest = min(shape.num_outputs, shape.num_inputs * shape.num_taps)
        return None if 1 <= options["rank"] <= largest else f"rank must be 1…{largest}"

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        u_BOR, v_BRP = weighted_svd(w_BOIK.flatten(2), g_BOO, c_BPP, int(options["rank"]))
        return v_BRP.view(*v_BRP.shape[:2], *w_BOIK.shape[2:]), u_BOR

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        v_BRIK, u_BOR = factors
        return torch.einsum("bor,brik->boik", u_BOR, v_BRIK)

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        shape = shape_of(layer)
        groups, inner = shape.num_groups, int(options["rank"]) * shape.num_groups
        v, u = factors or (None, None)
        window = convolution(layer, groups * shape.num_inputs, inner, groups, all_axes(layer))
        pointwise = convolution(layer, inner, groups * shape.num_outputs, groups, bias=layer.bias is not None)
        fill(window, v)
        fill(pointwise, u, layer.bias)
        return nn.Sequential(window, pointwise)
