"""One forward pass written down: every call of a module and of an operator, their shapes, and the memory they touch.

Everything that counts reads this record: sites, tables, the conventions of other tools, peak memory.
"""

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.jit._script import RecursiveScriptModule
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from lighten.errors import LightenError
from lighten.network.cost import RECURRENT
from lighten.network.operators import DECISIONS, FORMULAS, is_free, name_of, stand_in

Shape = tuple[int, ...]
Example = Tensor | tuple | list | Mapping  # one tensor, the positional arguments, or the named ones
WEIGHT_HOOKS = (BasePruningMethod, SpectralNorm, WeightNorm)  # compute a weight before their layer's call
CONTAINERS = (dict, OrderedDict, list, set)
ONE_AT_A_TIME = RLock()  # a pass sets what threads share, the random state among it, and puts it back


@dataclass(slots=True)
class ModuleCall:
    """One call of a module, in the order of beginning. inputs, outputs: shapes of all tensors, batch included.

    index: its place in `Record.modules`. depth: how many modules stand around it. The sizes are of the tensors given
    and made.
    """

    name: str
    module: nn.Module
    index: int
    depth: int
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    input_bytes: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """One operator, and the module call that ran it. kind, macs: by `FORMULAS`; macs is None where there is no formula.

    is_inside: of a recurrent layer, which counts as a whole, or of a hook or parametrization that computes a weight.
    reads, writes: indices into `Record.storages` of what it touches; a view reads and writes the same storage.
    """

    operator: str
    call: ModuleCall
    kind: str
    macs: int | None
    is_inside: bool
    is_pointwise: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the module."""
        return self.call.name

    @property
    def module(self) -> nn.Module:
        """The module."""
        return self.call.module


@dataclass(slots=True)
class Record:
    """A whole pass. storages: bytes of each stretch of memory; given: those that stood before the pass (weights,
    constants); inputs, results: those of what the network was given and gave back.

    device: `meta` where nothing was computed. densities: see `lighten.network.trace.density`, which fills it.
    """

    model: nn.Module
    example: Example
    device: str = "meta"
    modules: list[ModuleCall] = field(default_factory=list)
    operators: list[OperatorCall] = field(default_factory=list)
    storages: list[int] = field(default_factory=list)
    given: set[int] = field(default_factory=set)
    inputs: set[int] = field(default_factory=set)
    results: set[int] = field(default_factory=set)
    densities: dict[nn.Module, float] = field(default_factory=dict)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Of all tensors of the example."""
        return tuple(tuple(value.shape) for value in tensors(self.example))

    @property
    def uncounted(self) -> dict[str, int]:
        """{operator: calls} for which there is no formula, and that nobody has found to be free."""
        operators = (call.operator for call in self.operators if call.macs is None and not call.is_inside)
        wholes = (call for call in self.modules if isinstance(call.module, RECURRENT))
        return dict(Counter((*operators, *(type(c.module).__name__ for c in wholes if not (c.inputs and c.outputs)))))

    @property
    def decisions(self) -> dict[str, int]:
        """{operator: calls} by which the network read its own values: another input may take another path."""
        return dict(Counter(c.operator for c in self.operators if c.operator in DECISIONS and not c.is_inside))


def record(model: nn.Module, example: Example, on_meta: bool = True) -> Record:
    """A forward pass of `model` in evaluation mode; the model and the random state are left as they were.

    example: of a single tensor the first sample counts. On the meta device no memory is needed and nothing is computed;
    where the model doesn't allow it, and where `on_meta` is False, the pass is a real one. Raises LightenError where
    the model fails, naming the layer and shapes.
    """
    check(model, example)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(example, Tensor):
        example = example[:1]
    with ONE_AT_A_TIME:
        if on_meta:
            try:
                return recorded(model, example, "meta")
            except LightenError:  # the real pass says what is wrong, if anything is
                if any(value.is_meta for value in (*model.parameters(), *tensors(example))):
                    raise
        return recorded(model, example, "cpu")


def check(model: nn.Module, example: Example) -> None:
    """Raise LightenError for what can't be counted."""
    if not isinstance(model, nn.Module):
        raise LightenError(f"a network must be a torch.nn.Module, not {type(model).__name__}")
    if not any(True for _ in tensors(example)):
        raise LightenError("the example input holds no tensor: give one, a tuple of arguments, or a dictionary of them")
    if isinstance(example, Tensor) and (example.ndim == 0 or len(example) == 0):
        raise LightenError(f"the example input of shape {tuple(example.shape)} holds no sample on its first axis")
    for name, module in model.named_modules():
        where = f"'{name}' ({type(module).__name__})" if name else "the network"
        if isinstance(module, RecursiveScriptModule):
            raise LightenError(f"{where} is a script, whose layers can't be watched: give the module it was made from")
        if any(map(is_lazy, module._parameters.values())):
            raise LightenError(f"{where} has weights without a shape: call it once on an input before")


def recorded(model: nn.Module, example: Example, device: str) -> Record:
    """The record of a pass on one device; raises LightenError where the model fails there."""
    recorder = Recorder(Record(model, example, device))
    handles = [handle for module in recorder.names for handle in recorder.watch(module)]
    fast_attention = torch.backends.mha.get_fastpath_enabled()  # one operator for all of it, which has no formula
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))  # which hides the operators inside others
            stack.enter_context(unchanged(model))
            if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(recorder)
            output = run(model, example, recorder)
    except Exception as error:
        raise LightenError(recorder.failure(error)) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for handle in handles:
            handle.remove()
    recorder.found.results = {recorder.storage(value) for value in tensors(output)}
    return recorder.found


def run(model: nn.Module, example: Example, recorder: "Recorder") -> Any:
    """The model's output; on the meta device empty tensors stand in the place of its parameters and buffers."""
    found = recorder.found
    on_meta = found.device == "meta"
    args, kwargs = arguments(moved(example, "meta") if on_meta else example)
    found.inputs = {recorder.storage(value) for value in tensors((args, kwargs))}
    found.given.clear()
    if not on_meta:
        return model(*args, **kwargs)
    state = (*model.named_parameters(), *model.named_buffers())
    stand_ins = {name: torch.empty_like(value, device="meta") for name, value in state}
    found.given.update(recorder.storage(value) for value in stand_ins.values())
    for layer in recorder.names:
        if isinstance(layer, RECURRENT) and "forward" not in vars(layer):
            layer.forward = recurrent_forward(layer)  # undone with all that the pass leaves behind
    return functional_call(model, stand_ins, args, kwargs)


class Recorder(TorchDispatchMode):
    """Writes down what hooks and operators tell."""

    def __init__(self, found: Record):
        super().__init__()
        self.found = found
        self.names = {module: name for name, module in found.model.named_modules()}
        self.stack: list[ModuleCall] = []
        self.known: dict[int, int] = {}  # {address of a storage: its index}
        self.in_weight_hook = False

    def watch(self, module: nn.Module) -> Iterator[RemovableHandle]:
        """Hooks that tell when a module begins and ends."""
        if any(isinstance(hook, WEIGHT_HOOKS) for hook in module._forward_pre_hooks.values()):
            yield module.register_forward_pre_hook(self.prepare, prepend=True)
        yield module.register_forward_pre_hook(self.enter, with_kwargs=True)
        yield module.register_forward_hook(self.leave, with_kwargs=True)

    def prepare(self, module: nn.Module, args: tuple) -> None:
        """A module's weight is computed before its call."""
        self.in_weight_hook = True

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A module begins."""
        self.in_weight_hook = False
        given = list(tensors((args, kwargs)))
        call = ModuleCall(
            self.names[module],
            module,
            len(self.found.modules),
            len(self.stack),
            shapes(given),
            input_bytes=size_of(given),
        )
        self.stack.append(call)
        self.found.modules.append(call)

    def leave(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        """A module ends."""
        while (call := self.stack.pop()).module is not module:
            pass  # a call that failed, and whose error the network caught
        made = list(tensors(output[:1] if isinstance(module, RECURRENT) else output))  # without the last states
        call.outputs, call.output_bytes = shapes(made), size_of(made)

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = list(tensors((args, kwargs)))
        reads = tuple(dict.fromkeys(self.storage(value) for value in given))
        output = stand_in(operator, args) if given and given[0].is_meta else None
        if output is None:
            output = operator(*args, **(kwargs or {}))
        if self.stack:
            made = list(tensors(output))
            addresses = {value.untyped_storage()._cdata for value in given}
            writes = tuple(dict.fromkeys(self.storage(value, addresses) for value in made))
            self.found.operators.append(self.described(operator, args, output, given, made, reads, writes))
        return output

    def described(
        self, operator: Any, args: tuple, output: Any, given: list, made: list, reads: tuple, writes: tuple
    ) -> OperatorCall:
        """One operator that the innermost module runs itself."""
        call, name = self.stack[-1], name_of(operator)
        kind, formula = FORMULAS.get(name, ("", None))
        macs = formula(args, output) if formula else 0 if is_free(operator) else None
        is_inside = isinstance(call.module, RECURRENT) or self.in_weight_hook or is_part(call.name)
        is_pointwise = torch.Tag.pointwise in operator.tags
        return OperatorCall(
            name,
            call,
            kind,
            macs,
            is_inside,
            is_pointwise,
            shapes(given),
            shapes(made),
            reads,
            writes,
        )

    def storage(self, value: Tensor, seen: set[int] | None = None) -> int:
        """The index of a tensor's memory. seen: addresses of an operator's inputs: any other output is new memory.

        An address may have been freed and given out again, so only what an operator reads is looked up.
        """
        memory = value.untyped_storage()
        address = memory._cdata
        if address not in self.known or (seen is not None and address not in seen):
            if seen is None:
                self.found.given.add(len(self.found.storages))
            self.known[address] = len(self.found.storages)
            self.found.storages.append(memory.nbytes())
        return self.known[address]

    def failure(self, error: Exception) -> str:
        """One sentence: which layer failed, and what it was given."""
        said = str(error).strip().splitlines()
        reason = said[0] if said else type(error).__name__
        given = " and ".join(str(tuple(value.shape)) for value in tensors(self.found.example))
        where = ""
        if self.stack and self.stack[-1].name:
            call = self.stack[-1]
            what = " and ".join(map(str, call.inputs)) or "no tensor"
            where = f" in '{call.name}' ({type(call.module).__name__}), which is given {what}"
        return f"the model fails on an input of shape {given}{where}: {reason}"


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dictionaries, and objects that hold a model's outputs as attributes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)


def shapes(values: list[Tensor]) -> tuple[Shape, ...]:
    """Their shapes."""
    return tuple(tuple(value.shape) for value in values)


def size_of(values: list[Tensor]) -> int:
    """Their bytes."""
    return sum(value.numel() * value.element_size() for value in values)


def is_part(name: str) -> bool:
    """Whether a module of this name belongs to a layer's parametrization."""
    return "parametrizations" in name.split(".")


def arguments(example: Example) -> tuple[tuple, dict[str, Any]]:
    """How an example is passed: one tensor, positional arguments, or named ones."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def moved(example: Any, device: str) -> Any:
    """The same nested structure with its tensors on another device."""
    if isinstance(example, Tensor):
        return example.to(device)
    if isinstance(example, Mapping):
        return {key: moved(value, device) for key, value in example.items()}
    if isinstance(example, (tuple, list)):
        return type(example)(moved(value, device) for value in example)
    return example


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards all is as before, whatever a pass leaves behind.

    That is: training flags and other attributes of modules (hooks that compute a weight leave it there), what their
    dictionaries, lists and sets hold, buffers, and the random state.
    """
    kept = [(module, vars(module).copy()) for module in model.modules()]
    held = [(v, v.copy()) for _, attributes in kept for v in attributes.values() if type(v) in CONTAINERS]
    buffers = [(b, b._version, b.clone()) for b in model.buffers() if not b.is_inference()]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)
        for container, contents in held:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(contents)
        for buffer, version, value in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)


def recurrent_forward(layer: nn.RNNBase) -> Callable:
    """Gives tensors of the right shapes without running step by step; not for packed sequences."""

    def forward(x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        directions = 2 if layer.bidirectional else 1
        width = layer.proj_size or layer.hidden_size
        batch = () if x.ndim == 2 else (x.shape[0 if layer.batch_first else 1],)
        if x.shape[-1] != layer.input_size:
            raise ValueError(f"it reads {layer.input_size} features, not {x.shape[-1]}")
        hidden = x.new_empty(layer.num_layers * directions, *batch, width)
        output = x.new_empty(*x.shape[:-1], directions * width)
        if isinstance(layer, nn.LSTM):
            return output, (hidden, x.new_empty(*hidden.shape[:-1], layer.hidden_size))
        return output, hidden

    return forward
