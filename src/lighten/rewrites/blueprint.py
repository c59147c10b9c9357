"""Blueprint separable, PW→DW: a pointwise layer, then `rank` depthwise filters per output channel.

W[o,i,k] ≈ Σ_r a[o,r,i] b[o,r,k]; exact at rank = min(I, K). Per output channel a truncated SVD of W[o]
(BSConv, Haase & Amthor 2020, eq. 5). Two forms: layers in `parallel`, summed, or one `grouped` layer that sums them.
"""

import torch
from torch import Tensor, nn

from lighten.layers.parallel import Sum
from lighten.rewrites.algebra import weighted_svd
from lighten.rewrites.base import Factors, Layer, Options, Shape, all_axes, convolution, fill, shape_of


class Blueprint:
    """Pointwise, then depthwise. Factors: a_BORI, b_BORK."""

    name = "blueprint"

    def refuse(self, shape: Shape) -> str | None:
        if shape.num_taps == 1:
            return "its kernel is 1×1: there is nothing to separate"
        if shape.num_inputs == 1 and shape.num_groups > 1:
            return "it is depthwise already"
        if shape.num_inputs == 1:
            return "it has one input channel: the pointwise layer would only copy it"
        return None

    def grid(self, shape: Shape) -> list[Options]:
        return [{"rank": rank} for rank in range(1, min(shape.num_inputs, shape.num_taps, 4) + 1)]

    def forms(self, shape: Shape, options: Options) -> list[str]:
        return ["plain"] if options["rank"] == 1 else ["parallel", "grouped"]

    def check(self, shape: Shape, options: Options) -> str | None:
        largest = min(shape.num_inputs, shape.num_taps)
        return None if 1 <= options["rank"] <= largest else f"rank must be 1…{largest}"

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        groups, outputs, inputs, taps = w_BOIK.shape
        rank = int(options["rank"])
        c = c_BPP.view(groups, inputs, taps, inputs, taps)
        c_BII = c.diagonal(dim1=2, dim2=4).sum(-1)
        c_BKK = c.diagonal(dim1=1, dim2=3).sum(-1)
        a, b = weighted_svd(
            w_BOIK.flatten(0, 1), c_BII.repeat_interleave(outputs, 0), c_BKK.repeat_interleave(outputs, 0), rank
        )
        return a.mT.reshape(groups, outputs, rank, inputs).contiguous(), b.view(groups, outputs, rank, taps)

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        a_BORI, b_BORK = factors
        return torch.einsum("bori,bork->boik", a_BORI, b_BORK)

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        shape, rank = shape_of(layer), int(options["rank"])
        groups, channels = shape.num_groups, shape.num_groups * shape.num_inputs
        out_channels = shape.num_groups * shape.num_outputs
        has_bias = layer.bias is not None

        def pair(a: Tensor | None, b: Tensor | None, width: int, bias: bool) -> nn.Sequential:
            pointwise = convolution(layer, channels, out_channels * width, groups)
            depthwise = convolution(layer, out_channels * width, out_channels, out_channels, all_axes(layer), bias)
            fill(pointwise, a)
            fill(depthwise, b, layer.bias if bias else None)
            return nn.Sequential(pointwise, depthwise)

        a_BORI, b_BORK = factors or (None, None)
        if options.get("form") == "grouped" or rank == 1:
            return pair(a_BORI, b_BORK, rank, has_bias)
        slices = [(None, None) if factors is None else (a_BORI[:, :, r], b_BORK[:, :, r]) for r in range(rank)]
        return Sum(pair(a, b, 1, has_bias and r == 0) for r, (a, b) in enumerate(slices))
