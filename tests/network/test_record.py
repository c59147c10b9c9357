"""A recorded pass: which examples it takes, what it says to bad input, and what it writes down."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import lighten
from lighten.errors import LightenError
from lighten.network.operators import stand_in
from lighten.network.record import record


class Looking(nn.Module):
    """Chooses a layer by its input's values."""

    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Linear(3, 4), nn.Linear(3, 400)

    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) if x.mean() > 0 else self.small(x)


def test_modules_and_operators_in_their_order():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Flatten()))
    found = record(model, torch.zeros(5, 3, 6, 6))
    assert [(c.name, c.depth, c.inputs, c.outputs) for c in found.modules] == [
        ("", 0, ((1, 3, 6, 6),), ((1, 128),)),
        ("0", 1, ((1, 3, 6, 6),), ((1, 8, 4, 4),)),
        ("1", 1, ((1, 8, 4, 4),), ((1, 128),)),
        ("1.0", 2, ((1, 8, 4, 4),), ((1, 8, 4, 4),)),
        ("1.1", 2, ((1, 8, 4, 4),), ((1, 128),)),
    ]
    assert [(c.input_bytes, c.output_bytes) for c in found.modules[:2]] == [(432, 512), (432, 512)]
    assert [(o.operator, o.name, o.macs) for o in found.operators] == [
        ("convolution", "0", 16 * 8 * 27),
        ("relu", "1.0", 0),
        ("view", "1.1", 0),
    ]
    assert found.input_shapes == ((1, 3, 6, 6),) and found.uncounted == found.decisions == {}


@pytest.mark.parametrize("on_meta", [True, False])
def test_memory(on_meta):
    """Weights are given; the input and the result are told apart; a view and what is in place need nothing new."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Flatten())
    found = record(model, torch.zeros(1, 3, 6, 6), on_meta)
    convolution, relu, view = found.operators
    assert found.device == ("meta" if on_meta else "cpu")
    (made,) = convolution.writes
    assert relu.reads == relu.writes == view.reads == view.writes == (made,) and found.results == {made}
    assert found.storages[made] == 4 * 128 and found.inputs <= set(convolution.reads)
    assert [found.storages[index] for index in found.inputs] == [432]
    weights = set(convolution.reads) - found.inputs
    assert weights <= found.given and sorted(found.storages[index] for index in weights) == [32, 864]


def test_what_the_network_looks_at():
    found = record(Looking(), torch.ones(1, 3))
    assert found.device == "cpu" and found.decisions == {"_local_scalar_dense": 1}
    assert record(Looking().large, torch.ones(1, 3)).device == "meta"


@pytest.mark.parametrize("training", [True, False])
def test_stand_ins_have_the_shapes_that_pytorch_gives(training):
    x = torch.empty(2, 3, 4, 5, device="meta").to(memory_format=torch.channels_last)
    per_channel = [torch.empty(3, device="meta") for _ in range(4)]
    aten = torch.ops.aten
    norm = aten.native_batch_norm.default
    args = (x, *per_channel, training, 0.1, 1e-5)
    for operator, given in ((norm, args), (aten.relu.default, (x,)), (aten.relu_.default, (x,))):
        ours, theirs = stand_in(operator, given), operator(*given)
        ours, theirs = (value[0] if isinstance(value, tuple) else value for value in (ours, theirs))
        assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())
    assert stand_in(norm, (x[:, :2], *args[1:])) is None  # PyTorch says what is wrong
    assert stand_in(aten.add.Tensor, (x, x)) is None


class TwoTensors(nn.Module):
    """Token ids, a mask, and a number that isn't a tensor."""

    def __init__(self):
        super().__init__()
        self.words, self.linear = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
        return self.linear(self.words(ids) * mask[..., None] * scale)


IDS, MASK = torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5)


@pytest.mark.parametrize(
    "example",
    [(IDS, MASK), [IDS, MASK, 2.0], {"ids": IDS, "mask": MASK}, {"mask": MASK, "ids": IDS, "scale": 2.0}],
    ids=["tuple", "list", "dictionary", "with a number"],
)
def test_other_arguments(example):
    table = lighten.count(TwoTensors(), example)
    assert table.total.macs == 2 * 5 * 12 and [row.kind for row in table.rows] == ["embedding", "linear"]


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (IDS, "shape (1, 5): TwoTensors.forward() missing 1 required positional argument: 'mask'"),
        ({"idz": IDS, "mask": MASK}, "shape (2, 5) and (2, 5): TwoTensors.forward() got an unexpected keyword"),
        ((MASK, MASK), "shape (2, 5) and (2, 5) in 'words' (Embedding), which is given (2, 5): Expected tensor"),
        ((IDS, MASK[:, :3]), "shape (2, 5) and (2, 3): The size of tensor a (5) must match the size of tensor b (3)"),
    ],
)
def test_wrong_arguments(example, reason):
    with pytest.raises(LightenError) as raised:
        lighten.count(TwoTensors(), example)
    assert str(raised.value).startswith(f"the model fails on an input of {reason}")


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (torch.relu, torch.zeros(1, 3), "a network must be a torch.nn.Module, not builtin_function_or_method"),
        (nn.ReLU, torch.zeros(1, 3), "a network must be a torch.nn.Module, not type"),
        (None, torch.zeros(1, 3), "a network must be a torch.nn.Module, not NoneType"),
        *(
            (
                nn.ReLU(),
                empty,
                "the example input holds no tensor: give one, a tuple of arguments, or a dictionary of them",
            )
            for empty in ((), {}, [], None, (1, 3, 224, 224), "1x3x224x224")
        ),
        (nn.ReLU(), torch.zeros(0, 3), "the example input of shape (0, 3) holds no sample on its first axis"),
        (nn.ReLU(), torch.tensor(1.0), "the example input of shape () holds no sample on its first axis"),
        (
            nn.LazyLinear(3),
            torch.zeros(1, 3),
            "the network has weights without a shape: call it once on an input before",
        ),
        (
            nn.Sequential(nn.LazyLinear(3)),
            torch.zeros(1, 3),
            "'0' (LazyLinear) has weights without a shape: call it once on an input before",
        ),
    ],
    ids=str,
)
def test_what_is_no_network_and_no_example(model, example, message):
    with pytest.raises(LightenError) as raised:
        lighten.count(model, example)
    assert str(raised.value) == message


def test_scripts_are_refused_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(nn.Linear(3, 4))
    reason = "is a script, whose layers can't be watched: give the module it was made from"
    with pytest.raises(LightenError, match=f"^the network {reason}$"):
        lighten.count(script, torch.zeros(1, 3))
    with pytest.raises(LightenError, match=rf"^'1' \(RecursiveScriptModule\) {reason}$"):
        lighten.count(nn.Sequential(nn.ReLU(), script), torch.zeros(1, 3))


def test_compiled_networks_count_as_what_they_were_made_from():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8)
    expected = lighten.count(model, x)
    assert lighten.count(torch.compile(model), x).rows == expected.rows
    inner = nn.Sequential(torch.compile(model[0]), model[1])
    assert lighten.count(inner, x).total == expected.total and lighten.count(inner, x).uncounted == {}
    model.compile()
    assert lighten.count(model, x).rows == expected.rows


def test_data_dependent_control_flow_is_told():
    for example, macs in ((torch.ones(1, 3), 1200), (-torch.ones(1, 3), 12)):
        table = lighten.count(Looking(), example)
        assert table.total.macs == macs and table.total.params == 16 + 1600
        assert table.notes == (
            "the network looks at its own values (_local_scalar_dense × 1): "
            "what counts is the path that this input took",
        )


def test_a_shape_that_fails_inside_names_the_layer_and_the_shapes():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(9)), nn.ReLU())
    with pytest.raises(LightenError) as raised:
        lighten.count(model, torch.zeros(4, 3, 8, 8))
    assert str(raised.value) == (
        "the model fails on an input of shape (1, 3, 8, 8) in '0.1' (BatchNorm2d), which is given (1, 8, 6, 6): "
        "running_mean should contain 8 elements not 9"
    )


def test_a_network_that_catches_its_own_errors():
    class Trying(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Sequential(nn.Linear(5, 4)), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.first(x)
            except RuntimeError:
                return self.second(x) @ torch.ones(4, 2, device=x.device)

    table = lighten.count(nn.Sequential(Trying(), nn.Linear(2, 2)), torch.zeros(1, 3))
    assert [row.name for row in table.rows] == ["0.first.0", "0.second", "1"]
    assert [row.amount for row in table.rows][1:] == [12, 4] and table.total.macs == 12 + 8 + 4


@pytest.mark.parametrize("build", [nn.ReLU, nn.Identity, nn.Flatten, nn.Sequential])
def test_networks_without_parameters(build):
    total = lighten.count(build(), torch.zeros(2, 3, 4)).total
    assert (total.params, total.macs, total.weight_bytes, total.intensity) == (0, 0, 0, 0)


def test_packed_sequences_count_their_steps():
    packed = nn.utils.rnn.pack_padded_sequence(torch.zeros(3, 5, 4), [5, 3, 2], batch_first=True)
    table = lighten.count(nn.GRU(4, 6, batch_first=True), (packed,))
    assert table.uncounted == {} and table.total.macs == (5 + 3 + 2) * 3 * 6 * (4 + 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(dtype)
    total = lighten.count(model, torch.zeros(1, 3, 8, 8, dtype=dtype)).total
    assert (total.macs, total.weight_bytes) == (36 * 108, dtype.itemsize * (112 + 8))
    assert total.activation_bytes == 3 * 144 * dtype.itemsize
    with pytest.raises(LightenError, match=r"in '0' \(Conv2d\), which is given \(1, 3, 8, 8\): Input type"):
        lighten.count(model, torch.zeros(1, 3, 8, 8))


def test_quantised_layers_are_listed_not_guessed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), {nn.Linear})
        table = lighten.count(model, torch.zeros(1, 3))
    assert table.uncounted == {"linear_dynamic": 1} and table.total.macs == 0


def test_models_on_the_meta_device():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(200_000, 200_000), nn.Linear(200_000, 7))
    for device in ("meta", "cpu"):
        total = lighten.count(model, torch.zeros(1, 200_000, device=device)).total
        assert total.macs == total.effective_macs == 200_000 * 200_007
        assert total.params == 200_000 * 200_007 + 200_007
        assert total.weight_bytes == 4 * total.params
    with pytest.raises(LightenError, match=r"in '0' \(Linear\), which is given \(1, 5\)"):
        lighten.count(model, torch.zeros(1, 5))
    with pytest.raises(LightenError, match="cannot be called on meta tensors"):
        lighten.count(Looking().to("meta"), torch.zeros(1, 3))


def test_a_large_input_computes_nothing(monkeypatch):
    model = nn.Conv2d(3, 64, 3, padding=1)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("a value was read"))
    total = lighten.count(model, torch.zeros(1).expand(1, 3, 20_000, 20_000)).total
    assert total.macs == 20_000**2 * 64 * 27 and total.activation_bytes == 4 * 64 * 20_000**2


def test_threads_share_nothing_that_stays_changed():
    """Many passes at once: each is right, and what is global comes back."""
    model, seed = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), torch.get_rng_state()
    torch.backends.mha.set_fastpath_enabled(True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: record(model, torch.zeros(1, 3)), range(200)))
    assert {tuple(call.macs for call in one.operators if call.kind) for one in found} == {(12, 20)}
    assert torch.backends.mha.get_fastpath_enabled() and torch.equal(torch.get_rng_state(), seed)
