"""Spatially separable: kh×1 to `rank` channels, then 1×kw; or 1×kw first.

W as (I·kh) × (O·kw) ≈ a b; exact at rank = min(I·kh, O·kw). A truncated SVD (Jaderberg et al. 2014, scheme 2).
"""

import torch
from torch import Tensor, nn

from lighten.rewrites.algebra import weighted_svd
from lighten.rewrites.base import Factors, Layer, Options, Shape, convolution, fill, rank_grid, shape_of

FIRST_AXIS = {"vertical": 0, "horizontal": 1}


class Spatial:
    """One axis of the window, then the other. Factors: a_BRIX, b_BORY; X taps of the first axis, Y of the second."""

    name = "spatial"

    def refuse(self, shape: Shape) -> str | None:
        if len(shape.window) != 2:
            return "its window has no two axes to separate"
        if 1 in shape.window:
            return "its window is one tap wide: there is nothing to separate"
        return None

    def grid(self, shape: Shape) -> list[Options]:
        ranks = rank_grid(largest_paying_rank(shape))
        return [{"rank": rank, "order": order} for rank in ranks for order in FIRST_AXIS]

    def forms(self, shape: Shape, options: Options) -> list[str]:
        return ["plain"]

    def check(self, shape: Shape, options: Options) -> str | None:
        if options.get("order") not in FIRST_AXIS:
            return "order must be 'vertical' or 'horizontal'"
        first = FIRST_AXIS[options["order"]]
        largest = min(shape.num_inputs * shape.window[first], shape.num_outputs * shape.window[1 - first])
        return None if 1 <= options["rank"] <= largest else f"rank must be 1…{largest}"

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        groups, outputs, inputs, _ = w_BOIK.shape
        first = FIRST_AXIS[options["order"]]
        x, y = shape.window[first], shape.window[1 - first]
        w_BOIXY = w_BOIK.view(groups, outputs, inputs, *shape.window)
        c = c_BPP.view(groups, inputs, *shape.window, inputs, *shape.window)
        if first == 1:
            w_BOIXY, c = w_BOIXY.transpose(3, 4), c.permute(0, 1, 3, 2, 4, 6, 5)
        left = c.diagonal(dim1=3, dim2=6).sum(-1).reshape(groups, inputs * x, inputs * x)
        right = c.diagonal(dim1=1, dim2=4).sum(-1).diagonal(dim1=1, dim2=3).sum(-1)
        right = torch.einsum("bop,byz->boypz", g_BOO, right).reshape(groups, outputs * y, outputs * y)
        matrix = w_BOIXY.permute(0, 2, 3, 1, 4).reshape(groups, inputs * x, outputs * y)
        a, b = weighted_svd(matrix, left, right, int(options["rank"]))
        return a.mT.reshape(groups, -1, inputs, x), b.view(groups, -1, outputs, y).transpose(1, 2).contiguous()

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        a_BRIX, b_BORY = factors
        axes = "boixy" if options["order"] == "vertical" else "boiyx"
        return torch.einsum(f"brix,bory->{axes}", a_BRIX, b_BORY).flatten(3)

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        shape, rank = shape_of(layer), int(options["rank"])
        groups, first_axis = shape.num_groups, FIRST_AXIS[str(options["order"])]
        a, b = factors or (None, None)
        first = convolution(layer, layer.in_channels, rank * groups, groups, [first_axis])
        second = convolution(layer, rank * groups, layer.out_channels, groups, [1 - first_axis], layer.bias is not None)
        fill(first, a)
        fill(second, b, layer.bias)
        return nn.Sequential(first, second)


def largest_paying_rank(shape: Shape) -> int:
    """The largest rank that still has fewer weights than the whole kernel, at stride 1."""
    height, width = shape.window
    dense = shape.num_outputs * shape.num_inputs * height * width
    return max(1, (dense - 1) // (shape.num_inputs * height + shape.num_outputs * width))
