"""One forward pass on example input: which layers a network has, what shapes they see, how often they are called."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lighten.errors import LightenError
from lighten.network.cost import RECURRENT, Cost, count_macs
from lighten.network.operators import FORMULAS, is_free, name_of


@dataclass(frozen=True, slots=True)
class Site:
    """A layer of the network in its place, or an operator that a container runs itself, as `x @ y`.

    kind: the layer's type, or what FORMULAS calls the operator. input_shape, output_shape: of its first call, without
    the batch axis. calls: per forward pass. shared_with: other layers that use the same weight. Its parameters count
    once, at the first of them.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    calls: int
    shared_with: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Trace:
    """All sites: layers in the order of their first call, then what containers run themselves.

    uncounted: {operator: calls} for which there is no formula, and that nobody has found to be free.
    num_operators: calls of operators in all. outside: the parameters of no layer: those of containers, and of layers
    that the pass doesn't call.
    """

    input_shape: tuple[int, ...]
    sites: tuple[Site, ...]
    uncounted: dict[str, int] = field(default_factory=dict)
    num_operators: int = 0
    outside: Cost = field(default_factory=Cost)

    @property
    def cost(self) -> Cost:
        """The cost of the whole network: every parameter of the model once."""
        return reduce(add, (site.cost for site in self.sites), self.outside)


@dataclass
class Calls:
    """Shapes of the first call, and sums over all."""

    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    num_calls: int = 0
    macs: int = 0
    activation_bytes: int = 0

    def add(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], macs: int, size: int) -> None:
        """One more call."""
        if not self.num_calls:
            self.input_shape, self.output_shape = input_shape, output_shape
        self.num_calls += 1
        self.macs += macs
        self.activation_bytes += size


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Sites and cost of `model` on one sample of `example` (N, …); the model is left as it was.

    Costs are those of the operators that PyTorch runs, so that functions count as layers do; only a recurrent layer is
    counted as a whole. Raises LightenError where the model fails on its example input.
    """
    recorder = Recorder(model)
    handles = [
        handle
        for module in recorder.names
        for handle in (
            module.register_forward_pre_hook(recorder.enter),
            module.register_forward_hook(recorder.leave, with_kwargs=True),
        )
    ]
    fast_attention = torch.backends.mha.get_fastpath_enabled()  # one operator for all of it, which has no formula
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with recorder:
            run_quietly(model, example[:1])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for handle in handles:
            handle.remove()
    functions = (
        Site(recorder.names[module], kind, c.input_shape, c.output_shape, c.num_calls, (), Cost(c.macs))
        for (module, kind), c in recorder.functions.items()
    )
    return Trace(
        tuple(example.shape[1:]),
        (*describe(recorder.layers, recorder.names), *functions),
        dict(recorder.uncounted),
        recorder.num_operators,
        cost_outside(model, recorder.layers),
    )


class Recorder(TorchDispatchMode):
    """Adds up what the operators cost that each layer runs, and each container by itself.

    layers: in the order of their first call; functions: {(container, kind): calls} for operators of containers.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.leaves = {module for module, name in self.names.items() if is_layer(module) and not is_part(name)}
        self.stack: list[nn.Module] = []
        self.layers: dict[nn.Module, Calls] = {}
        self.functions: dict[tuple[nn.Module, str], Calls] = {}
        self.uncounted: Counter[str] = Counter()
        self.num_operators = 0

    def enter(self, module: nn.Module, _: tuple) -> None:
        """A module begins."""
        self.stack.append(module)
        if module in self.leaves:
            self.layers.setdefault(module, Calls())

    def leave(self, module: nn.Module, inputs: tuple, keywords: dict, output: object) -> None:
        """A module ends."""
        self.stack.pop()
        if module not in self.leaves:
            return
        given = first_tensor((*inputs, *keywords.values()))
        made = first_tensor(output if isinstance(output, tuple) else (output,))
        calls, shapes = self.layers[module], (sample_shape(module, given), sample_shape(module, made))
        calls.add(*shapes, 0, 0 if made is None else made.numel() * made.element_size())
        if isinstance(module, RECURRENT):
            if given is None or made is None:
                self.uncounted[type(module).__name__] += 1
            else:
                calls.macs += count_macs(module, *shapes) or 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = operator(*args, **(kwargs or {}))
        self.num_operators += 1
        module = self.stack[-1] if self.stack else None
        if module is not None and not self.is_whole(module):
            self.count(module, operator, args, output)
        return output

    def is_whole(self, module: nn.Module) -> bool:
        """Whether what runs inside doesn't count: it is counted as a whole, or belongs to a layer's weight."""
        return isinstance(module, RECURRENT) or is_part(self.names[module])

    def count(self, module: nn.Module, operator: Any, args: tuple, output: Any) -> None:
        """One operator that a module runs itself."""
        name = name_of(operator)
        if name not in FORMULAS:
            if not is_free(operator):
                self.uncounted[name] += 1
            return
        kind, formula = FORMULAS[name]
        macs = formula(args, output)
        if module in self.leaves:
            self.layers[module].macs += macs
        else:
            given, made = first_tensor(args), first_tensor(output if isinstance(output, tuple) else (output,))
            shapes = [tuple(value.shape[1:]) for value in (given, made) if value is not None]
            self.functions.setdefault((module, kind), Calls()).add(*shapes, macs, 0)


def is_layer(module: nn.Module) -> bool:
    """Whether a module has no parts but parametrizations."""
    return all(name == "parametrizations" for name, _ in module.named_children())


def is_part(name: str) -> bool:
    """Whether a module of this name belongs to a layer's parametrization."""
    return "parametrizations" in name.split(".")


def first_tensor(values: Iterable[object]) -> Tensor | None:
    """The first of the values that is a tensor."""
    return next((value for value in values if isinstance(value, Tensor)), None)


def cost_outside(model: nn.Module, met: Iterable[nn.Module]) -> Cost:
    """The parameters of the model that no layer of the pass has."""
    placed = {id(p) for module in met for p in module.parameters()}
    rest = [p for p in model.parameters() if id(p) not in placed]
    return Cost(params=sum(p.numel() for p in rest), weight_bytes=sum(p.numel() * p.element_size() for p in rest))


def run_quietly(model: nn.Module, example: Tensor) -> None:
    """One forward pass in evaluation mode without gradients, random state and training flags restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(example)
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LightenError(f"the model fails on an input of shape {tuple(example.shape)}: {first_line}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def sample_shape(module: nn.Module, value: Tensor | None) -> tuple[int, ...]:
    """The shape of one sample; a recurrent layer, and a linear one after it, may have time first, then the batch."""
    if value is None:
        return ()
    axis = 1 if isinstance(module, RECURRENT) and not module.batch_first else 0
    if isinstance(module, nn.Linear) and value.ndim == 3 and value.shape[0] != 1:
        axis = 1
    return tuple(size for i, size in enumerate(value.shape) if i != axis)


def describe(met: dict[nn.Module, Calls], names: dict[nn.Module, str]) -> list[Site]:
    """Sites of the layers that were met."""
    users = defaultdict(list)
    for module in met:
        for parameter in module.parameters():
            users[id(parameter)].append(names[module])
    counted: set[int] = set()
    sites = []
    for module, calls in met.items():
        own = [p for p in module.parameters() if id(p) not in counted]
        counted.update(map(id, own))
        weight = next(module.parameters(), None)
        shared = () if weight is None else tuple(n for n in users[id(weight)] if n != names[module])
        cost = Cost(
            calls.macs,
            sum(p.numel() for p in own),
            calls.activation_bytes,
            sum(p.numel() * p.element_size() for p in own),
        )
        kind = type(module).__name__.lower()
        sites.append(Site(names[module], kind, calls.input_shape, calls.output_shape, calls.num_calls, shared, cost))
    return sites
