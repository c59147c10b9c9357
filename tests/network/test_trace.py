"""A pass finds every layer, counts every parameter once, and leaves the model as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision import models

from lighten.errors import LightenError
from lighten.network.trace import trace


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class Odd(nn.Module):
    """Parameters of its own, a layer used twice, a weight used by two layers, and a layer that nothing calls."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.extras = nn.ParameterList([nn.Parameter(torch.zeros(5))])
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(7, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.twice(self.twice(x * self.scale))))


def test_shared_and_repeated_layers_count_once():
    model = Odd()
    found = trace(model, torch.randn(3, 4, 6, 6))
    sites = {site.name: site for site in found.sites}
    assert list(sites) == ["twice", "first", "second"]
    assert sites["twice"].calls == 2 and sites["twice"].cost.macs == 2 * 36 * 9 * 16
    assert sites["twice"].cost.params == 9 * 16 + 4
    assert sites["first"].shared_with == ("second",) and sites["second"].shared_with == ("first",)
    assert (sites["first"].cost.params, sites["second"].cost.params) == (16, 4)
    assert sites["second"].cost.macs == 36 * 16 and sites["twice"].shared_with == ()


def test_parameters_of_no_layer_count_too():
    model = Odd()
    found = trace(model, torch.randn(1, 4, 6, 6))
    assert found.outside.params == 4 + 5 + (7 * 11 + 11) and found.outside.macs == 0
    assert found.cost.params == num_parameters(model) and found.cost.weight_bytes == 4 * num_parameters(model)
    assert found.uncounted == {}


def test_sites_in_the_order_of_their_first_call():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 5))
    found = trace(model, torch.randn(4, 3, 8, 8))
    assert found.input_shape == (3, 8, 8) and found.uncounted == {}
    assert [(s.name, s.kind, s.input_shape, s.output_shape, s.calls) for s in found.sites] == [
        ("0", "conv2d", (3, 8, 8), (8, 3, 3), 1),
        ("1", "relu", (8, 3, 3), (8, 3, 3), 1),
        ("2", "flatten", (8, 3, 3), (72,), 1),
        ("3", "linear", (72,), (5,), 1),
    ]


def test_a_single_layer_is_a_network():
    found = trace(nn.Linear(3, 4), torch.randn(2, 3))
    assert [site.name for site in found.sites] == [""] and found.cost.macs == 12


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_cost_is_that_of_one_sample(batch_size):
    assert (
        trace(nn.Conv2d(3, 8, 3), torch.randn(batch_size, 3, 8, 8)).cost
        == trace(nn.Conv2d(3, 8, 3), torch.randn(2, 3, 8, 8)).cost
    )


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 4))
    model.train()
    model[0].eval()
    state, seed = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    trace(nn.Sequential(model, Noise()), torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    assert [m.training for m in model] == [False, True, True] and model.training
    assert torch.equal(torch.get_rng_state(), seed)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(not m._forward_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_a_model_that_fails_says_where_it_stands():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(5, 5)).train()
    with pytest.raises(LightenError) as raised:
        trace(model, torch.randn(4, 3, 8, 8))
    message = (
        "the model fails on an input of shape (1, 3, 8, 8) in '1' (Linear), which is given (1, 8, 6, 6): "
        "mat1 and mat2 shapes cannot be multiplied (48x6 and 5x5)"
    )
    assert str(raised.value) == message
    assert all(m.training and not m._forward_hooks for m in model.modules())


class Mute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError


def test_an_error_without_words_is_named():
    with pytest.raises(LightenError, match=r"^the model fails on an input of shape \(1, 3\): ZeroDivisionError$"):
        trace(Mute(), torch.randn(2, 3))


def test_what_has_no_formula_is_listed():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = nn.Bilinear(3, 3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x, self.pair(x, x)[:, :3])

    model = Pair()
    found = trace(nn.Sequential(nn.Linear(3, 3), model), torch.randn(2, 3))
    assert found.uncounted == {"_trilinear": 2} and found.num_operators > 2
    assert found.cost.params == 12 + num_parameters(model) and found.cost.macs == 9


class Functions(nn.Module):
    """A convolution, a product and a weighted sum that no layer computes, and a gate that costs nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.conv2d(x, self.weight, stride=2, groups=2)
        rows = maps.flatten(2).transpose(1, 2)
        return torch.einsum("nij,nik->njk", self.linear(rows) * 2, rows @ rows.transpose(1, 2)).sigmoid()


def test_functions_count_as_layers_do():
    found = trace(nn.Sequential(Functions()), torch.randn(3, 4, 9, 9))
    assert [(s.name, s.kind, s.calls, s.cost.macs) for s in found.sites] == [
        ("0.linear", "linear", 1, 16 * 6 * 5),
        ("0", "convolution", 1, 16 * 6 * 2 * 9),
        ("0", "matmul", 2, 16 * 6 * 16 + 16 * 5 * 16),
    ]
    assert found.sites[1].input_shape == (4, 9, 9) and found.sites[1].output_shape == (6, 4, 4)
    assert found.uncounted == {} and found.outside.params == 108


def test_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    model, fast = Attention(), torch.backends.mha.get_fastpath_enabled()
    found = trace(model, torch.randn(2, 5, 8))
    assert found.uncounted == {} and found.cost.params == num_parameters(model)
    assert found.cost.macs == 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8
    assert torch.backends.mha.get_fastpath_enabled() is fast


def test_axes_folded_into_the_batch_count_in_full():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))

    assert trace(Folded(), torch.randn(2, 3, 7, 9)).cost.macs == 7 * 7 * 4 * 9


def test_a_parametrized_layer_is_one_site():
    model = nn.Sequential(weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU())
    found = trace(model, torch.randn(2, 3, 8, 8))
    assert [site.name for site in found.sites] == ["0", "1"] and found.uncounted == {}
    assert found.cost.macs == 36 * 27 * 8 and found.cost.params == num_parameters(model) == 27 * 8 + 8 + 8


class Named(nn.Module):
    """Passes its input by name, and gives out a dictionary."""

    def __init__(self):
        super().__init__()
        self.linear, self.pack = nn.Linear(3, 4), Pack()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.pack(self.linear(input=x))


class Pack(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x}


def test_inputs_by_name_and_outputs_in_a_dictionary():
    found = trace(Named(), torch.randn(2, 3))
    assert [(s.name, s.input_shape, s.output_shape) for s in found.sites] == [
        ("linear", (3,), (4,)),
        ("pack", (4,), (4,)),
    ]
    assert found.cost.macs == 12


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(nn.utils.rnn.pack_padded_sequence(x, [x.shape[1]], batch_first=True))[1][0]


def test_a_packed_sequence_counts_its_steps():
    found = trace(Packed(), torch.randn(2, 5, 3))
    assert found.uncounted == {} and found.cost.params == num_parameters(nn.LSTM(3, 4))
    assert found.cost.macs == 5 * 4 * 4 * (3 + 4)


class CrnnHead(nn.Module):
    """Two bidirectional LSTMs, each with a linear layer, over 37 characters (Shi et al. 2015, table 1)."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.first = nn.LSTM(512, 256, bidirectional=True, batch_first=batch_first)
        self.between = nn.Linear(512, 256)
        self.second = nn.LSTM(256, 256, bidirectional=True, batch_first=batch_first)
        self.last = nn.Linear(512, 37)

    def forward(self, x_NTC: Tensor) -> Tensor:
        x = x_NTC if self.batch_first else x_NTC.transpose(0, 1)
        return self.last(self.second(self.between(self.first(x)[0]))[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_head_of_the_crnn_whichever_axis_is_time(batch_first):
    found = trace(CrnnHead(batch_first), torch.randn(2, 81, 512))
    assert (found.cost.params, found.cost.macs) == (2_779_941, 224_487_936)
    assert [site.input_shape for site in found.sites] == [(81, 512), (81, 512), (81, 256), (81, 512)]
    assert found.cost.activation_bytes == 4 * 81 * (512 + 256 + 512 + 37)


@pytest.mark.parametrize(
    ("build", "params"),
    [(models.mobilenet_v2, 3_504_872), (models.mobilenet_v3_large, 5_483_032), (models.mobilenet_v3_small, 2_542_856)],
)
def test_published_parameter_counts(build, params):
    with torch.device("meta"):
        found = trace(build(), torch.empty(1, 3, 224, 224))
    assert found.cost.params == params and found.uncounted == {} and found.outside.params == 0


def test_functions_cost_nothing_and_change_nothing():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(self.conv(x), 1)

    assert trace(Pooled(), torch.randn(1, 3, 6, 6)).cost.macs == 16 * 27 * 4
