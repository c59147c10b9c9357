"""Milliseconds of every layer within a run of the whole network, in PyTorch and in ONNX Runtime.

Times of layers that run alone, as the planner needs them, are in `latency_table.py`.
"""

import ast
import copy
import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.layers import OPSET
from lighten.export.onnx import evaluating, quiet
from lighten.measure.accuracy import evaluation_mode
from lighten.network.record import is_part
from lighten.network.trace import is_layer
from lighten.runtimes.onnxruntime import open_session, session_options

NUM_WARM_UPS = 3
SCOPES = "pkg.torch.onnx.name_scopes"  # what PyTorch's exporter says of a node: the modules around it
SUFFIXES = re.compile(r"(_nchwc|/\w+Fusion/?)?(_token_\d+)?$")  # of nodes that ONNX Runtime makes of others
MAX_FUSED = 4  # nodes in a row that ONNX Runtime makes one
Pass = dict[str, float]  # {layer, or what belongs to none: ms}


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Medians over runs. total_ms: of a whole pass; layers_ms: {layer: ms}, of all its calls.

    others_ms: what belongs to no layer, by what it is: operators that a container runs, copies of the runtime's own.
    """

    runtime: str
    threads: int
    total_ms: float
    layers_ms: dict[str, float]
    others_ms: dict[str, float]


def layer_times(
    model: nn.Module, example: Tensor, runtime: str = "pytorch", threads: int = 1, runs: int = 20
) -> LayerTimes:
    """Times of the layers of `model` on the first sample of `example` (N, …), by their names in the network.

    ONNX Runtime fuses layers: what it makes of several counts for the one that does the work, and the others have no
    time. Both ways of looking add a little to each layer (some microseconds of hooks, one or two of the profiler).
    Raises LightenError for a runtime that can't tell, and where the model can't be exported.
    """
    if runtime not in PASSES:
        raise LightenError(f"times per layer are known of {' and '.join(PASSES)}, not of '{runtime}'")
    if runs < 1:
        raise LightenError(f"times per layer need at least one run, not {runs}")
    names = {name for name, module in model.named_modules() if is_layer(module) and not is_part(name)}
    totals, passes = PASSES[runtime](model, example[:1], names, threads, runs + NUM_WARM_UPS)
    medians = {key: statistics.median(one.get(key, 0.0) for one in passes[NUM_WARM_UPS:]) for key in keys(passes)}
    return LayerTimes(
        runtime,
        threads,
        statistics.median(totals[NUM_WARM_UPS:]),
        {key: ms for key, ms in medians.items() if key in names},
        {key: ms for key, ms in medians.items() if key not in names},
    )


def keys(passes: Sequence[Pass]) -> list[str]:
    """All keys, in the order of first meeting."""
    return list(dict.fromkeys(key for one in passes for key in one))


def pytorch_passes(
    model: nn.Module, example: Tensor, names: set[str], threads: int, runs: int
) -> tuple[list[float], list[Pass]]:
    """The time of each pass and of its layers, by hooks on a copy of the model."""
    model = copy.deepcopy(model)
    spent: Pass = defaultdict(float)
    begun: list[int] = []
    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter_ns()))
        layer.register_forward_hook(stop_clock(name, begun, spent))
    totals, passes = [], []
    with evaluation_mode(model), pinned(threads):
        for _ in range(runs):
            start = time.perf_counter_ns()
            model(example)
            totals.append((time.perf_counter_ns() - start) / 1e6)
            passes.append(dict(spent) | {"between layers": max(0.0, totals[-1] - sum(spent.values()))})
            spent.clear()
    return totals, passes


def stop_clock(name: str, begun: list[int], spent: Pass) -> Callable[..., None]:
    """A hook that adds what has passed since the layer began."""

    def hook(*_: object) -> None:
        spent[name] += (time.perf_counter_ns() - begun.pop()) / 1e6

    return hook


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """PyTorch's thread count for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def onnxruntime_passes(
    model: nn.Module, example: Tensor, names: set[str], threads: int, runs: int
) -> tuple[list[float], list[Pass]]:
    """The time of each pass and of its layers, by the profiler of ONNX Runtime."""
    made = named_export(model, example)
    layers = layers_of_nodes(made.graph, names)
    totals, passes = [], []
    for total, nodes in profiled(made.SerializeToString(), example, threads, runs):
        spent: Pass = defaultdict(float)
        for node in nodes:
            operator, name = node["args"]["op_name"], node["name"].removesuffix("_kernel_time")
            spent[layers(operator, name)] += node["dur"] / 1e3
        totals.append(total / 1e3)
        passes.append(dict(spent))
    return totals, passes


PASSES = {"pytorch": pytorch_passes, "onnxruntime": onnxruntime_passes}


def named_export(model: nn.Module, example: Tensor) -> onnx.ModelProto:
    """ONNX of a network for the batch of the example, with the exporter's notes on modules, which our files lack."""
    try:
        with evaluating(model), quiet(), torch.no_grad():
            program = torch.onnx.export(model, (example,), dynamo=True, opset_version=OPSET, verbose=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LightenError(f"can't export a {type(model).__name__} to ONNX: {reason}") from error
    return program.model_proto


def profiled(content: bytes, example: Tensor, threads: int, runs: int) -> list[tuple[int, list[dict[str, Any]]]]:
    """Of each run the time in µs and the profiler's entry for each node, in order."""
    options = session_options(threads)
    options.enable_profiling = True
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(content, options)
        feed = {session.get_inputs()[0].name: example.numpy(force=True)}
        for _ in range(runs):
            session.run(None, feed)
        entries = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: list[tuple[int, list[dict[str, Any]]]] = []
    nodes: list[dict[str, Any]] = []
    for entry in entries:
        if entry.get("cat") == "Node" and entry["name"].endswith("_kernel_time"):
            nodes.append(entry)
        elif entry["name"] == "model_run":  # comes after its nodes
            found.append((entry["dur"], nodes))
            nodes = []
    return found


def layers_of_nodes(graph: onnx.GraphProto, names: set[str]) -> Callable[[str, str], str]:
    """A function from a node that ONNX Runtime ran, its operator and name, to the layer that it came from.

    ONNX Runtime names a fused node as one of those that it came from, or as what the last of them wrote; from there we
    go back to the node of the same operator. What can't be found is named by its operator.
    """
    makers = {output: node for node in graph.node for output in node.output}
    by_name = {node.name: node for node in graph.node} | makers

    def layer(operator: str, name: str) -> str:
        node = by_name.get(name) or by_name.get(SUFFIXES.sub("", name.removeprefix("fused ")))
        if node is None:
            return f"{operator} (ONNX Runtime's own)"
        return layer_of_node(origin(node, operator.removeprefix("Fused"), makers), names)

    return layer


def origin(node: onnx.NodeProto, operator: str, makers: dict[str, onnx.NodeProto]) -> onnx.NodeProto:
    """The nearest node of this operator among a node and those before it; else the node itself."""
    nearest = [node]
    for _ in range(MAX_FUSED):
        for candidate in nearest:
            if candidate.op_type == operator:
                return candidate
        nearest = [makers[value] for candidate in nearest for value in candidate.input if value in makers]
    return node


def layer_of_node(node: onnx.NodeProto, names: set[str]) -> str:
    """The layer whose weights a node reads, or that the exporter says it came from; else operator and container."""
    for value in node.input:
        if (owner := value.rpartition(".")[0]) in names and owner:
            return owner
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = ast.literal_eval(notes.get(SCOPES, "['', '']"))[:-1]  # the last is the operator's
    container = f" in '{scopes[-1]}'" if scopes[-1] else ""
    return next((scope for scope in reversed(scopes) if scope in names), node.op_type + container)
