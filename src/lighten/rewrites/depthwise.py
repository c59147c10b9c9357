"""Depthwise separable, DW→PW: `rank` depthwise filters per input channel, then one pointwise layer.

W[o,i,k] ≈ Σ_r p[o,i,r] d[i,r,k]; exact at rank = min(O, K). Per input channel a truncated SVD of W[:,i]
(Network Decoupling, Guo et al. 2018, eq. 4). Four forms: depthwise layers in `parallel`, each with a pointwise layer
of its own, summed; a depth `multiplier`; depthwise layers with `concat` outputs; the input channels `repeat`ed.
"""

import torch
from torch import Tensor, nn

from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.rewrites.algebra import square_roots, weighted_svd
from lighten.rewrites.base import Factors, Layer, Options, Shape, all_axes, convolution, fill, shape_of


class Depthwise:
    """Depthwise, then pointwise. Factors: d_BIRK, p_BOIR."""

    name = "depthwise"

    def refuse(self, shape: Shape) -> str | None:
        if shape.num_taps == 1:
            return "its kernel is 1×1: there is nothing to separate"
        if shape.num_inputs == 1 and shape.num_groups > 1:
            return "it is depthwise already"
        if shape.num_inputs == 1:
            return "it has one input channel: every output map would be a multiple of one filtered image"
        return None

    def grid(self, shape: Shape) -> list[Options]:
        return [{"rank": rank} for rank in range(1, min(shape.num_outputs, shape.num_taps, 4) + 1)]

    def forms(self, shape: Shape, options: Options) -> list[str]:
        if options["rank"] == 1:
            return ["plain"]
        return ["parallel", "multiplier"] + (["concat", "repeat"] if shape.num_groups == 1 else [])

    def check(self, shape: Shape, options: Options) -> str | None:
        largest = min(shape.num_outputs, shape.num_taps)
        return None if 1 <= options["rank"] <= largest else f"rank must be 1…{largest}"

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        groups, outputs, inputs, taps = w_BOIK.shape
        rank = int(options["rank"])
        c_BIKK = c_BPP.view(groups, inputs, taps, inputs, taps).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
        p, d = weighted_svd(
            w_BOIK.transpose(1, 2).flatten(0, 1),
            g_BOO.repeat_interleave(inputs, 0),
            c_BIKK.flatten(0, 1),
            rank,
        )
        d_BIRK = d.view(groups, inputs, rank, taps)
        p_BOIR = p.view(groups, inputs, outputs, rank).transpose(1, 2)
        residual_BOIK = w_BOIK - self.kernel((d_BIRK, p_BOIR), shape, options)
        return d_BIRK, p_BOIR + best_pointwise(residual_BOIK, d_BIRK, c_BPP)

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        d_BIRK, p_BOIR = factors
        return torch.einsum("boir,birk->boik", p_BOIR, d_BIRK)

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        shape, rank = shape_of(layer), int(options["rank"])
        groups, channels = shape.num_groups, shape.num_groups * shape.num_inputs
        out_channels = shape.num_groups * shape.num_outputs
        d_BIRK, p_BOIR = factors or (None, None)

        def part(values: Tensor | None, axis: int, index: int) -> Tensor | None:
            return None if values is None else values.select(axis, index)

        def depthwise(weight: Tensor | None, fan_out: int = 1, copies: int = 1) -> nn.Module:
            made = convolution(
                layer, channels * copies, channels * copies * fan_out, channels * copies, all_axes(layer)
            )
            fill(made, weight)
            return made

        def pointwise(weight: Tensor | None, copies: int, has_bias: bool) -> nn.Module:
            bias = layer.bias if has_bias else None
            made = convolution(layer, channels * copies, out_channels, groups, bias=bias is not None)
            fill(made, weight, bias)
            return made

        slices = [part(d_BIRK, 2, r) for r in range(rank)]
        rank_first = None if p_BOIR is None else p_BOIR.transpose(2, 3)
        match options.get("form", "parallel"):
            case "multiplier":
                return nn.Sequential(depthwise(d_BIRK, fan_out=rank), pointwise(p_BOIR, rank, True))
            case "concat":
                return nn.Sequential(Concat(depthwise(d) for d in slices), pointwise(rank_first, rank, True))
            case "repeat":
                stacked = None if d_BIRK is None else torch.stack(slices)
                return nn.Sequential(Repeat(rank), depthwise(stacked, copies=rank), pointwise(rank_first, rank, True))
        branches = [nn.Sequential(depthwise(d), pointwise(part(p_BOIR, 3, r), 1, r == 0)) for r, d in enumerate(slices)]
        return branches[0] if rank == 1 else Sum(branches)


def best_pointwise(w_BOIK: Tensor, d_BIRK: Tensor, c_BPP: Tensor) -> Tensor:
    """p_BOIR of least loss for these depthwise filters: p = W C Dᵀ (D C Dᵀ)⁻¹, whatever the gradients' moment is.

    Damped towards zero, so give it what a first p left over: at full rank that is nothing.
    """
    groups, inputs, rank, taps = d_BIRK.shape
    c = c_BPP.view(groups, inputs, taps, inputs, taps)
    cd = torch.einsum("bixjy,bjry->bixjr", c, d_BIRK)
    dcd = torch.einsum("birx,bixjs->birjs", d_BIRK, cd).flatten(1, 2).flatten(2)
    _, inverse_root = square_roots(dcd)
    wcd = w_BOIK.flatten(2) @ cd.reshape(groups, inputs * taps, inputs * rank)
    return (wcd @ inverse_root @ inverse_root).view(groups, -1, inputs, rank)
