"""Blocks of several branches fold exactly into one convolution; stacks see what a large kernel sees."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.layers.branches import AsymmetricConv, Branches, RepVggConv, StackedConv
from lighten.layers.conv_norm import ConvNorm
from lighten.layers.fold import fold
from lighten.layers.parallel import Sum
from lighten.network.trace import trace

CONV = partial(ConvNorm, norm=None, activation=None)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def close(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors agree to a fraction, by their dtype, of the largest value of the second."""
    same_kind = found.shape == wanted.shape and found.dtype == wanted.dtype
    return same_kind and bool((found - wanted).abs().max() <= TOLERANCE[wanted.dtype] * wanted.abs().max())


@torch.no_grad()
def shaken(model: nn.Module) -> nn.Module:
    """Random statistics and affine parameters in every norm, as after training; in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


@torch.no_grad()
def agree(one: nn.Module, other: nn.Module, channels: int) -> bool:
    dtype = next(other.parameters()).dtype
    x = torch.randn(2, channels, 11, 9, dtype=dtype)
    return close(one(x), other(x))


def without_affine(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=0.1, affine=False)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_comparer_sees_a_wrong_scale_shape_and_dtype(dtype):
    x = torch.randn(3, 4, dtype=dtype)
    assert close(x, x) and not close(2 * x, x) and not close(x, 2 * x)
    assert not close(x[:1], x) and not close(x.half(), x) and not close(x + x.abs().max() * 1e-4, x)
    assert not close(x * torch.nan, x)


@given(
    block=st.sampled_from([AsymmetricConv, RepVggConv]),
    channels=st.sampled_from([(6, 6, 1), (6, 6, 2), (6, 6, 6), (4, 6, 2), (3, 5, 1)]),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    norm=st.sampled_from([nn.BatchNorm2d, without_affine, None]),
    dtype=st.sampled_from(list(TOLERANCE)),
)
@settings(max_examples=40)
def test_a_folded_block_gives_the_same(block, channels, kernel, stride, dilation, norm, dtype):
    inputs, outputs, groups = channels
    made = block(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, norm=norm, activation=None)
    made = shaken(made.to(dtype))
    folded = fold(made)
    assert isinstance(folded.branches, nn.Conv2d) and len(list(folded)) == 1
    assert folded.branches.weight.shape == (outputs, inputs // groups, kernel, kernel)
    assert agree(folded, made, inputs)


def test_a_folded_block_costs_what_the_convolution_costs():
    folded = fold(AsymmetricConv(8, 16, 5, 2))
    sites = trace(folded, torch.zeros(1, 8, 12, 12)).sites
    assert [site.kind for site in sites] == ["conv2d", "relu"]
    assert (sites[0].cost.params, sites[0].cost.macs) == (25 * 8 * 16 + 16, 25 * 8 * 16 * 36)


def test_the_identity_stands_only_where_the_shape_stays():
    assert len(RepVggConv(4, 4).branches) == 3 and isinstance(RepVggConv(4, 4).branches[2], nn.BatchNorm2d)
    assert isinstance(RepVggConv(4, 4, norm=None).branches[2], nn.Identity)
    assert len(RepVggConv(4, 4, stride=2).branches) == len(RepVggConv(4, 5).branches) == 2


def test_branches_of_other_forms_fold():
    """Convolutions alone, with bias and two norms, replicated edges, and a plain identity."""
    branches = Branches(
        [
            nn.Conv2d(4, 4, (3, 1), padding=(1, 0), padding_mode="replicate"),
            nn.Sequential(
                nn.Conv2d(4, 4, (1, 5), padding=(0, 2), padding_mode="replicate"),
                nn.Sequential(nn.BatchNorm2d(4), nn.Identity(), nn.BatchNorm2d(4)),
            ),
            nn.Identity(),
        ]
    )
    folded = fold(shaken(branches.double()))
    assert isinstance(folded, nn.Conv2d) and folded.kernel_size == (3, 5)
    assert agree(folded, branches, 4)


class Twice(nn.Module):
    """Blocks nested at several depths, one of them in two places; a sum that isn't a block."""

    def __init__(self):
        super().__init__()
        shared = RepVggConv(6, 6)
        self.stem = nn.Sequential(AsymmetricConv(3, 6, stride=2), shared)
        self.body = nn.ModuleList([nn.Sequential(shared, shared, nn.Dropout(0.5)), RepVggConv(6, 6, groups=6)])
        self.plain = Sum([nn.Conv2d(6, 6, 1), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.body:
            x = layer(x)
        return self.plain(x)


def test_a_whole_network_folds_and_the_original_stays():
    model = shaken(Twice().double())
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    assert agree(folded, model, 3)
    assert not any(isinstance(module, (Branches, nn.BatchNorm2d)) for module in folded.modules())
    assert type(folded.plain) is Sum and type(folded.plain[1]) is nn.ReLU
    assert folded.stem[1] is folded.body[0][0] is folded.body[0][1]
    assert sum(isinstance(module, nn.Conv2d) for module in folded.modules()) == 4
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert sum(isinstance(module, Branches) for module in model.modules()) == 3


def test_a_network_in_training_folds_by_its_running_statistics():
    model = shaken(Twice().double()).train()
    state = torch.get_rng_state()
    folded = fold(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in (*folded.modules(), *model.modules()))
    assert all(parameter.requires_grad for parameter in folded.parameters())
    assert agree(folded.eval(), model.eval(), 3)


def test_a_fold_of_other_statistics_is_noticed():
    model = shaken(RepVggConv(6, 6, activation=None))
    folded = fold(model)
    model.branches[1].norm.running_var *= 2
    assert not agree(folded, model, 6)


def refused(*branches: nn.Module) -> str:
    with pytest.raises(LightenError, match="cannot fold '0.branches': ") as caught:
        fold(nn.Sequential(nn.ModuleDict({"branches": Branches(branches)})))
    return str(caught.value).partition(": ")[2]


def test_what_cannot_be_folded_is_refused():
    conv = CONV(4, 4)
    only = "a branch may have one Conv2d and after it BatchNorm2d only"
    assert refused(conv, ConvNorm(4, 4, norm=None)) == f"its branch 1 has a ReLU; {only}"
    assert refused(nn.GroupNorm(2, 4), conv) == f"its branch 0 has a GroupNorm; {only}"
    assert refused(nn.Sequential(*conv, *conv)) == f"its branch 0 has a Conv2d; {only}"
    assert refused(conv, Branches([conv])) == f"its branch 1 has a Branches; {only}"
    batch_only = nn.BatchNorm2d(4, track_running_stats=False)
    assert refused(conv, batch_only) == "a norm of its branch 1 keeps no running statistics"
    assert refused(nn.Identity(), nn.BatchNorm2d(4)) == "none of its branches has a convolution"
    differ = "its convolutions differ in channels, stride, dilation, groups or padding mode"
    assert refused(conv, CONV(4, 4, stride=2)) == differ
    assert refused(conv, CONV(4, 4, dilation=2)) == differ
    assert refused(conv, CONV(4, 4, groups=2)) == differ
    size = "its convolutions must have odd kernels, padded so that they keep the size at stride 1"
    assert refused(conv, nn.Conv2d(4, 4, 3)) == size
    assert refused(conv, nn.Conv2d(4, 4, 2, dilation=2, padding=1)).startswith("its convolutions differ")
    assert refused(nn.Conv2d(4, 4, 2, dilation=2, padding=1)) == size
    beside = "a branch without convolution needs stride 1 and as many outputs as inputs beside it"
    assert refused(CONV(4, 8), nn.Identity()) == beside
    assert refused(CONV(4, 4, stride=2), nn.Identity()) == beside


@pytest.mark.parametrize("block", [AsymmetricConv, RepVggConv, StackedConv])
@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_kernels_without_a_middle(block, kernel):
    with pytest.raises(LightenError, match=f"needs an odd kernel of at least 3, not {kernel}"):
        block(4, 4, kernel)


@pytest.mark.parametrize(("kernel", "weights"), [(3, 9), (5, 18), (7, 27)])
def test_a_stack_has_fewer_weights_than_a_large_kernel(kernel, weights):
    """7×7: 27 C² against 49 C² (Simonyan & Zisserman 2015, section 2.3)."""
    sites = trace(StackedConv(6, 6, kernel), torch.zeros(1, 6, 8, 8)).sites
    convolutions = [site.cost for site in sites if site.kind == "conv2d"]
    assert sum(cost.params for cost in convolutions) == weights * 36
    assert sum(cost.macs for cost in convolutions) == weights * 36 * 64


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(5, 1, 1), (7, 1, 2), (7, 3, 1)])
def test_a_stack_sees_what_a_large_kernel_sees(kernel, stride, dilation):
    """The input positions on which one output depends, by its gradient."""
    x = torch.zeros(1, 2, 31, 31, requires_grad=True)
    stack = StackedConv(2, 3, kernel, stride, dilation=dilation, norm=None, activation=None)
    large = CONV(2, 3, kernel, stride, dilation=dilation)

    def seen(layer: nn.Module) -> Tensor:
        middle = layer(x)[0, 0, 5, 5]
        return torch.autograd.grad(middle, x)[0].ne(0).any(1)

    assert torch.equal(seen(stack), seen(large))


def test_a_stack_activates_after_each_convolution():
    kinds = [type(module) for layer in StackedConv(4, 8, 5) for module in layer]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2


@pytest.mark.parametrize("block", [AsymmetricConv, RepVggConv, StackedConv])
def test_export_agrees_before_and_after_folding(block, tmp_path):
    model = shaken(nn.Sequential(block(4, 6, 5, 2), block(6, 6)))
    for i, form in enumerate((model, fold(model))):
        path = tmp_path / f"{i}.onnx"
        export_onnx(form, torch.randn(1, 4, 12, 9), path)
        assert check_parity(form, path, torch.randn(3, 4, 12, 9)).agrees
