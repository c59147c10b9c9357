"""What `lighten.count` leaves as it was, which zeros it tells apart, and what it refuses to leave uncounted."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import lighten
from lighten.errors import LightenError
from lighten.network.record import record


class Net(nn.Module):
    """A bit of everything; `looks` makes it look at its own values, so that it can't run on the meta device."""

    def __init__(self, looks: bool):
        super().__init__()
        self.looks = looks
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.pruned = nn.Conv2d(8, 8, 3, padding=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.old = nn.utils.weight_norm(nn.utils.spectral_norm(nn.Conv2d(8, 4, 1)), "bias", dim=None)
        self.new = parametrizations.spectral_norm(nn.Linear(4, 6))
        self.dropout, self.lstm = nn.Dropout(0.5), nn.LSTM(6, 5)
        prune.random_unstructured(self.pruned, "weight", 0.5)
        self.register_buffer("counter", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(2))
        self.cache: dict[str, Tensor] = {}
        self.history: list[Tensor] = []
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.counter += 1
        self.seen = self.seen + 2
        self.cache["x"] = self.last = x
        self.history.append(x)
        x = self.norm(self.conv(x)) + torch.randn(8, 1, 1, device=x.device)
        x = self.old(self.pruned(x)).mean((2, 3))
        scale = x.sum().item() if self.looks else 2.0
        return self.lstm(self.dropout(self.new(x))[None] * scale)[0]


@pytest.fixture(params=[False, True], ids=["meta", "real"])
def net(request) -> Net:
    """In training mode, but for a norm; with gradients, and hooks of the user's."""
    net = Net(request.param).train()
    net(torch.randn(4, 3, 6, 6)).sum().backward()
    net.norm.eval()
    net.cache.clear(), net.history.clear()
    return net


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that a pass might change, by value and by identity."""
    found: dict[str, Any] = {"random": torch.get_rng_state(), "grad": torch.is_grad_enabled()}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            found[f"{name}/{key}"] = (id(value), copy.copy(value) if isinstance(value, (dict, list, set)) else value)
        found[f"{name}/hooks"] = [*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        grad = None if tensor.grad is None else tensor.grad.clone()
        found[f"{name}/tensor"] = (id(tensor), tensor.requires_grad, tensor.detach().clone(), grad)
    return found


def same(a: Any, b: Any) -> bool:
    """Equal, tensors by their values."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.device == b.device and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and (a is b or a == b)


def changed(model: nn.Module, call: Callable[[], object]) -> list[str]:
    """What differs after a call."""
    before = snapshot(model)
    call()
    after = snapshot(model)
    return [key for key in before.keys() | after.keys() if key not in before or not same(before[key], after.get(key))]


def test_counting_changes_nothing(net):
    x = torch.randn(2, 3, 6, 6)
    assert changed(net, lambda: lighten.count(net, x)) == []
    assert record(net, x).device == ("cpu" if net.looks else "meta")


def test_the_comparison_sees_what_a_plain_pass_changes(net):
    found = changed(net, lambda: net(torch.randn(2, 3, 6, 6)))
    for key in ("random", "/cache", "/history", "/last", "counter/tensor", "seen/tensor", "old/weight"):
        assert key in found, key


def test_a_failing_pass_changes_nothing_either(net):
    def fail() -> None:
        with pytest.raises(LightenError):
            lighten.count(net, torch.zeros(2, 3, 2, 2))
        with pytest.raises(LightenError):
            lighten.count(net, torch.zeros(2, 5, 6, 6))

    assert changed(net, fail) == []


def test_the_users_hooks_are_still_there_and_work(net):
    calls = []
    pre = net.conv.register_forward_pre_hook(lambda module, args: calls.append("before"))
    post = net.conv.register_forward_hook(lambda module, args, output: output * 1)
    net.register_full_backward_hook(lambda module, given, made: calls.append("gradient"))
    total = lighten.count(net, torch.randn(2, 3, 6, 6)).total
    calls.clear()
    net(torch.randn(2, 3, 6, 6, requires_grad=True)).sum().backward()
    assert calls == ["before", "gradient"] and len(net.conv._forward_hooks) == 1
    pre.remove(), post.remove()
    assert not net.conv._forward_hooks and not net.conv._forward_pre_hooks
    assert lighten.count(net, torch.randn(2, 3, 6, 6)).total == total


def test_training_goes_on_as_if_nothing_had_been_counted(net):
    def step(model: Net) -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        model(torch.ones(4, 3, 6, 6)).sum().backward()
        return [p.grad for p in model.parameters()]

    twin = Net(net.looks).train()
    twin.norm.eval()
    twin.load_state_dict(net.state_dict())
    lighten.count(net, torch.randn(2, 3, 6, 6))
    gradients = step(net)
    assert all(g.abs().sum() > 0 for g in gradients[:3]) and same(gradients, step(twin))


def test_a_pending_gradient_is_not_broken(net):
    loss = net(torch.randn(4, 3, 6, 6)).sum()
    net.zero_grad()
    lighten.count(net, torch.randn(2, 3, 6, 6))
    loss.backward()
    assert net.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_count_is_the_same_in_every_mode(net, context):
    expected = lighten.count(net, torch.zeros(1, 3, 6, 6)).as_dict()
    with context():
        found = lighten.count(net, torch.zeros(1, 3, 6, 6)).as_dict()
    assert found == expected and found["uncounted"] == []


def test_weights_that_are_computed_cost_no_macs(net):
    """Neither the power iterations of spectral norms nor the masks are work on the input."""
    total = lighten.count(net, torch.zeros(1, 3, 6, 6)).total
    assert total.macs == 16 * 27 * 8 + 16 * 72 * 8 + 16 * 8 * 4 + 4 * 6 + 4 * 5 * (6 + 5)
    assert total.params == sum(p.numel() for p in net.parameters())


def pruned(layer: nn.Module, name: str = "weight", keep: int = 1, of: int = 4) -> nn.Module:
    """Every of-th weight is kept, `keep` at a time."""
    weight = getattr(layer, name)
    mask = (torch.arange(weight.numel()) % of < keep).reshape(weight.shape)
    return prune.custom_from_mask(layer, name, mask)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 8, 3), (4, 6, 6)),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 6, 6)),
        (nn.ConvTranspose2d(4, 8, 3), (4, 6, 6)),
        (nn.Linear(8, 5), (8,)),
    ],
)
def test_masked_weights_are_counted_apart(layer, shape):
    dense = lighten.count(copy.deepcopy(layer), torch.zeros(1, *shape)).total
    masked = lighten.count(pruned(layer), torch.zeros(1, *shape)).total
    num_biases = layer.bias.numel()
    assert dense.effective_macs == dense.macs and dense.effective_params == dense.params
    assert masked.effective_macs * 4 == dense.macs
    assert (masked.effective_params - num_biases) * 4 == dense.params - num_biases
    rest = ("macs", "params", "activations", "activation_bytes", "weight_bytes", "input_bytes", "trainable_params")
    assert all(getattr(masked, name) == getattr(dense, name) for name in rest)


def test_masked_recurrent_layers():
    layer = nn.LSTM(4, 4)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        pruned(layer, name, keep=1, of=2)
    total = lighten.count(layer, torch.zeros(1, 3, 4)).total
    assert (total.macs, total.effective_macs) == (3 * 128, 3 * 64)
    assert (total.params, total.effective_params) == (160, 96)


def test_masks_that_last_and_parametrizations():
    made_permanent = prune.remove(pruned(nn.Linear(8, 5)), "weight")

    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (torch.arange(8) % 4 == 0)

    parametrized = nn.Linear(8, 5)
    nn.utils.parametrize.register_parametrization(parametrized, "weight", Mask())
    for layer in (made_permanent, parametrized):
        total = lighten.count(layer, torch.zeros(1, 8)).total
        assert (total.macs, total.effective_macs, total.params, total.effective_params) == (40, 10, 45, 15)


def test_a_used_layer_and_a_shared_weight_keep_their_share_of_zeros():
    layer = pruned(nn.Linear(8, 8))
    total = lighten.count(nn.Sequential(layer, layer), torch.zeros(1, 8)).total
    assert (total.macs, total.effective_macs, total.effective_params) == (128, 32, 24)


def test_unknown_conventions():
    with pytest.raises(LightenError, match=r"^there is no convention 'mac'; did you mean macs"):
        lighten.count(nn.ReLU(), torch.zeros(1, 3), convention="mac")


def test_strict():
    model = nn.Sequential(nn.Bilinear(3, 3, 4))
    model.forward = lambda x: model[0](x, x)
    assert lighten.count(model, torch.zeros(1, 3)).uncounted == {"_trilinear": 1}
    with pytest.raises(LightenError, match=r"^these operators of 'Sequential' have no formula: _trilinear \(1 of \d"):
        lighten.count(model, torch.zeros(1, 3), strict=True)
    assert lighten.count(nn.Linear(3, 4), torch.zeros(1, 3), strict=True).uncounted == {}


def test_a_row_for_each_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(self.pool(self.layer(x)))
            return x @ x

    model, example = Twice(), torch.zeros(2, 4, 8, 8)
    whole, calls = lighten.count(model, example), lighten.count(model, example, convention="flops", per_call=True)
    assert [(row.name, row.calls, row.output_shape, row.amount) for row in calls.rows] == [
        ("layer", 1, (4, 8, 8), 2 * 64 * 144),
        ("pool", 1, (4, 4, 4), 0),
        ("layer", 1, (4, 4, 4), 2 * 16 * 144),
        ("", 1, (4, 4), 2 * 4 * 4 * 4 * 4),  # PyTorch multiplies the maps as one batch of matrices
    ]
    assert [row.cost.params for row in calls.rows] == [148, 0, 0, 0] and calls.total == whole.total
    assert sum(row.cost.macs for row in calls.rows) == whole.amount and len(whole.rows) == 3
    with pytest.raises(LightenError, match=r"^rows per call are known of macs and flops, not of 'thop'$"):
        lighten.count(model, example, convention="thop", per_call=True)
