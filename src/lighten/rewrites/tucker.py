"""Tucker-2: 1×1 to `rank_in` channels, the window to `rank_out`, 1×1 back (Kim et al. 2015, section 3.1).

W[o,i,k] ≈ Σ_rs u[o,r] core[r,s,k] v[s,i], by the higher-order SVD; exact at rank_in = I, rank_out = O.
A rank_out of O leaves the last 1×1 out: the window then writes all outputs itself.
"""

import torch
from torch import Tensor, nn

from lighten.rewrites.algebra import square_roots
from lighten.rewrites.base import Factors, Layer, Options, Shape, all_axes, convolution, fill, shape_of

FRACTIONS = (0.25, 0.375, 0.5, 0.625, 0.75)


class Tucker:
    """Fewer channels around the window. Factors: v_BSI, core_BRSK, and u_BOR unless rank_out = O."""

    name = "tucker"

    def refuse(self, shape: Shape) -> str | None:
        if shape.num_taps == 1:
            return "its kernel is 1×1: low-rank serves it better"
        if min(shape.num_inputs, shape.num_outputs) < 4:
            return "it has too few channels for lower ranks to pay"
        return None

    def grid(self, shape: Shape) -> list[Options]:
        pairs = {(near(shape.num_inputs, f), near(shape.num_outputs, g)) for f in FRACTIONS for g in (f, f + 0.25, 1)}
        return [{"rank_in": s, "rank_out": r} for s, r in sorted(pairs) if r <= shape.num_outputs]

    def forms(self, shape: Shape, options: Options) -> list[str]:
        return ["plain"]

    def check(self, shape: Shape, options: Options) -> str | None:
        if not 1 <= options["rank_in"] <= shape.num_inputs:
            return f"rank_in must be 1…{shape.num_inputs}"
        return None if 1 <= options["rank_out"] <= shape.num_outputs else f"rank_out must be 1…{shape.num_outputs}"

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        groups, _, inputs, taps = w_BOIK.shape
        c_BII = c_BPP.view(groups, inputs, taps, inputs, taps).diagonal(dim1=2, dim2=4).sum(-1)
        c_BKK = c_BPP.view(groups, inputs, taps, inputs, taps).diagonal(dim1=1, dim2=3).sum(-1)
        (g, g_inverse), (c, c_inverse), (k, _) = (square_roots(m) for m in (g_BOO, c_BII, c_BKK))
        white = torch.einsum("bop,bpjl,bij,blk->boik", g, w_BOIK, c, k)
        u = leading_basis(white.flatten(2), int(options["rank_out"]))
        v = leading_basis(white.transpose(1, 2).flatten(2), int(options["rank_in"]))
        v_BSI = v.mT @ c_inverse
        core_BRIK = torch.einsum("bor,bop,bpik->brik", u, g, w_BOIK)
        core = torch.einsum("brik,bij,bjs->brsk", core_BRIK, c, v)
        if options["rank_out"] == shape.num_outputs:
            return v_BSI, torch.einsum("bor,brsk->bosk", g_inverse @ u, core)
        return v_BSI, core, g_inverse @ u

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        v_BSI, core_BRSK, *last = factors
        kernel = torch.einsum("brsk,bsi->brik", core_BRSK, v_BSI)
        return torch.einsum("bor,brik->boik", last[0], kernel) if last else kernel

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        shape = shape_of(layer)
        groups = shape.num_groups
        inner_in, inner_out = int(options["rank_in"]) * groups, int(options["rank_out"]) * groups
        out_channels = groups * shape.num_outputs
        has_last = inner_out != out_channels
        has_bias = layer.bias is not None
        layers = [
            convolution(layer, groups * shape.num_inputs, inner_in, groups),
            convolution(layer, inner_in, inner_out, groups, all_axes(layer), has_bias and not has_last),
        ]
        if has_last:
            layers.append(convolution(layer, inner_out, out_channels, groups, bias=has_bias))
        for made, factor in zip(layers, factors or (None,) * len(layers), strict=True):
            fill(made, factor)
        fill(layers[-1], None, layer.bias)
        return nn.Sequential(*layers)


def leading_basis(m_BNM: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors; where `rank` is larger than M, completed to an orthonormal basis."""
    gram = m_BNM.double() @ m_BNM.mT.double()
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)[..., :rank].to(m_BNM.dtype)


def near(size: int, fraction: float) -> int:
    """The rank nearest to a fraction of the channels, at least 1."""
    return max(1, round(size * fraction))
