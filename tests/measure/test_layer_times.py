"""Every layer's time stands under its own name, and nothing that was timed is dropped."""

import itertools

import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.measure import layer_times as module
from lighten.measure.layer_times import layer_times, layers_of_nodes, named_export, pinned, profiled


class Block(nn.Module):
    """A residual block with all that ONNX Runtime fuses, a layer that is called twice, and one that never is."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.pool, self.head, self.spare = nn.MaxPool2d(2), nn.Linear(16, 5), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.body(x) + x
        x = self.pool(self.body(x))
        return self.head(x.mean((2, 3)).sigmoid())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a millisecond whenever it is read."""
    ticks = itertools.count(0, 1_000_000)
    monkeypatch.setattr(module.time, "perf_counter_ns", lambda: next(ticks))


def test_a_layers_own_time_in_pytorch(clock: None):
    found = layer_times(Block(), torch.zeros(2, 3, 8, 8), runs=3)
    once = dict.fromkeys(("stem", "norm", "pool", "head"), 1.0)
    assert found.layers_ms == once | dict.fromkeys(("body.0", "body.1"), 2.0)
    assert found.total_ms == 17.0 and found.others_ms == {"between layers": 9.0}  # 8 calls of layers, 2 ticks each
    assert (found.runtime, found.threads) == ("pytorch", 1)


def test_the_median_is_of_the_runs_after_the_warm_up(monkeypatch: pytest.MonkeyPatch):
    passes = [{"a": ms, "b": 1.0} for ms in (900.0, 900.0, 900.0, 1.0, 5.0, 3.0)]
    passes[3]["rare"] = 6.0
    fake = {"pytorch": lambda *_: ([one["a"] + 1 for one in passes], passes)}
    monkeypatch.setattr(module, "PASSES", fake)
    found = layer_times(nn.ModuleDict({"a": nn.ReLU(), "b": nn.ReLU()}), torch.zeros(1), runs=3)
    assert found.layers_ms == {"a": 3.0, "b": 1.0} and found.total_ms == 4.0 and found.others_ms == {"rare": 0.0}


def test_only_the_first_sample_runs_and_the_model_is_left_alone():
    shapes = set()

    class Watch(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            shapes.add((tuple(x.shape), self.training, torch.is_inference_mode_enabled(), torch.get_num_threads()))
            return super().forward(x)

    model = nn.Sequential(Watch()).train()
    before = torch.get_num_threads()
    layer_times(model, torch.zeros(4, 3), threads=2, runs=1)
    assert shapes == {((1, 3), False, True, 2)}
    assert model.training and not model[0]._forward_hooks and not model[0]._forward_pre_hooks
    assert torch.get_num_threads() == before


def test_threads_come_back_after_a_failure():
    def fail(threads: int) -> None:
        with pinned(threads):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    seen, before = [], torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        fail(before + 1)
    assert seen == [before + 1] and torch.get_num_threads() == before


def test_mistakes_of_the_user():
    with pytest.raises(LightenError, match="known of pytorch and onnxruntime, not of 'openvino'"):
        layer_times(Block(), torch.zeros(1, 3, 8, 8), "openvino")
    with pytest.raises(LightenError, match="at least one run, not 0"):
        layer_times(Block(), torch.zeros(1, 3, 8, 8), runs=0)


def test_a_model_that_cannot_be_exported_is_named():
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(LightenError, match="can't export a Undecided to ONNX"):
        layer_times(Undecided(), torch.zeros(1, 3), "onnxruntime", runs=1)


def test_names_in_onnxruntime():
    model = Block().train()
    found = layer_times(model, torch.zeros(1, 3, 8, 8), "onnxruntime", runs=2)
    assert {"stem", "body.0", "pool", "head"} <= found.layers_ms.keys() <= {"stem", "body.0", "body.1", "pool", "head"}
    assert any("Sigmoid" in what for what in found.others_ms)  # the network runs it itself
    assert model.training and found.total_ms > 0


def test_a_layer_that_is_the_whole_network():
    found = layer_times(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), "onnxruntime", runs=1)
    assert "" in found.layers_ms
    assert list(layer_times(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), runs=1).layers_ms) == [""]


def test_a_recurrent_layer_keeps_its_name_and_nothing_is_dropped():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 16, bidirectional=True, batch_first=True), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    model, example = Reader().eval(), torch.zeros(1, 6, 8)
    made = named_export(model, example)
    layer = layers_of_nodes(made.graph, {"rnn", "head"})
    runs = profiled(made.SerializeToString(), example, 1, 3)
    assert len(runs) == 3 and len({len(nodes) for _, nodes in runs}) == 1
    met = {}
    for node in runs[-1][1]:
        operator = node["args"]["op_name"]
        met.setdefault(operator, set()).add(layer(operator, node["name"].removesuffix("_kernel_time")))
    assert met["LSTM"] == {"rnn"}
    assert met.get("Gemm", met.get("MatMul")) == {"head"}
    assert all(name for names in met.values() for name in names)


@pytest.fixture
def graph():
    """Convolution, addition and activation, whose weights have names, then what the exporter says the place of."""
    nodes = [
        helper.make_node("Conv", ["input", "layers.0.weight"], ["a"], "node_a"),
        helper.make_node("Add", ["a", "input"], ["b"], "node_b"),
        helper.make_node("Relu", ["b"], ["c"], "node_c"),
        helper.make_node("MatMul", ["c", "val_3"], ["d"], "node_d"),
        helper.make_node("Relu", ["d"], ["e"], "node_e"),
        helper.make_node("Sigmoid", ["e"], ["f"], "node_f"),
    ]
    places = {"node_d": "['', 'head', 'head.rnn', 'lstm']", "node_e": "['', 'head', 'relu_1']", "node_f": "['', 'f']"}
    for node in nodes:
        if node.name in places:
            node.metadata_props.add(key=module.SCOPES, value=places[node.name])
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1])
    return helper.make_graph(nodes, "graph", [value], [])


@pytest.mark.parametrize(
    ("operator", "name", "layer"),
    [
        ("Conv", "node_a", "layers.0"),
        ("Conv", "a_nchwc", "layers.0"),
        ("Conv", "c_nchwc", "layers.0"),  # fused with what follows it, and named after that
        ("FusedConv", "node_c", "layers.0"),
        ("Conv", "c_nchwc_token_7", "layers.0"),
        ("Gemm", "node_d/MatMulAddFusion", "head.rnn"),
        ("LayerNormalization", "node_d/LayerNormFusion/", "head.rnn"),
        ("Relu", "node_e", "Relu in 'head'"),
        ("Sigmoid", "node_f", "Sigmoid"),
        ("ReorderOutput", "ReorderOutput_token_3", "ReorderOutput (ONNX Runtime's own)"),
    ],
)
def test_where_a_node_of_onnxruntime_came_from(graph, operator: str, name: str, layer: str):
    assert layers_of_nodes(graph, {"layers.0", "head.rnn"})(operator, name) == layer
