"""Which layers a network has, what shapes they see, how often they are called, and what each of them costs."""

import math
from collections import defaultdict
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lighten.network.cost import RECURRENT, Cost, count_macs
from lighten.network.record import ModuleCall, OperatorCall, Record, Shape, is_part, record, unchanged

Key = nn.Module | int  # a layer, or one call


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


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Sites and cost of `model` on one sample of `example` (N, …); the model is left as it was.

    Costs are those of the operators that PyTorch runs, so that functions count as layers do; only a recurrent layer is
    counted as a whole. Raises LightenError where the model fails on its example input.
    """
    return sites_of(record(model, example))


def sites_of(found: Record, per_call: bool = False) -> Trace:
    """What a record says of each layer, or of each call, and of the operators that containers run themselves."""

    def key(call: ModuleCall) -> Key:
        return call.index if per_call else call.module

    calls: dict[Key, list[ModuleCall]] = {}
    for call in found.modules:
        if is_layer(call.module) and not is_part(call.name):
            calls.setdefault(key(call), []).append(call)
    macs: dict[Key, int] = defaultdict(int)
    functions: dict[tuple[Key, str], list[OperatorCall]] = {}
    for operator in found.operators:
        if operator.is_inside or not operator.kind:
            continue
        place = key(operator.call)
        if place in calls:
            macs[place] += operator.macs or 0
        else:
            functions.setdefault((place, operator.kind), []).append(operator)
    return Trace(
        found.input_shapes[0][1:],
        (
            *layer_sites(found, calls, macs),
            *(function_site(found, kind, operators) for (_, kind), operators in functions.items()),
        ),
        found.uncounted,
        len(found.operators),
        cost_outside(found.model, (first.module for first, *_ in calls.values())),
    )


def layer_sites(found: Record, calls: dict[Key, list[ModuleCall]], macs: dict[Key, int]) -> Iterable[Site]:
    """Sites of the layers that were met."""
    users = defaultdict(list)
    for module, name in {first.module: first.name for first, *_ in calls.values()}.items():
        for parameter in module.parameters():
            users[id(parameter)].append(name)
    counted: set[int] = set()
    for place, (first, *rest) in calls.items():
        module = first.module
        own = [p for p in module.parameters() if id(p) not in counted]
        counted.update(map(id, own))
        weight = next(module.parameters(), None)
        shared = () if weight is None else tuple(n for n in users[id(weight)] if n != first.name)
        done = macs[place] + sum(recurrent_macs(module, call) for call in (first, *rest))
        share = density(found, module)
        cost = Cost(
            macs=done,
            activation_bytes=sum(call.output_bytes for call in (first, *rest)),
            activations=sum(math.prod(shape) for call in (first, *rest) for shape in call.outputs),
            input_bytes=sum(call.input_bytes for call in (first, *rest)),
            effective_macs=round(done * share),
        ) + cost_of_parameters(own, share)
        given, made = sample_shape(module, first.inputs), sample_shape(module, first.outputs)
        yield Site(first.name, kind_of(module), given, made, 1 + len(rest), shared, cost)


def function_site(found: Record, kind: str, operators: list[OperatorCall]) -> Site:
    """The site of all operators of one kind that one container runs itself."""
    first = operators[0]
    given, made = (shapes[0][1:] if shapes else () for shapes in (first.inputs, first.outputs))
    macs = sum(operator.macs or 0 for operator in operators)
    cost = Cost(
        macs,
        activation_bytes=sum(found.storages[i] for o in operators for i in o.writes[:1]),  # others are for gradients
        activations=sum(math.prod(shape) for o in operators for shape in o.outputs[:1]),
        input_bytes=sum(found.storages[i] for o in operators for i in o.reads if i not in found.given),
        effective_macs=macs,
    )
    return Site(first.name, kind, given, made, len(operators), (), cost)


def cost_outside(model: nn.Module, met: Iterable[nn.Module]) -> Cost:
    """The parameters of the model that no layer of the pass has."""
    placed = {id(p) for module in met for p in module.parameters()}
    return cost_of_parameters([p for p in model.parameters() if id(p) not in placed])


def cost_of_parameters(parameters: list[nn.Parameter], density: float = 1.0) -> Cost:
    """What they take, each once. density: share of each that isn't zero."""
    num_params = sum(p.numel() for p in parameters)
    return Cost(
        params=num_params,
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        trainable_params=sum(p.numel() for p in parameters if p.requires_grad),
        effective_params=sum(round(p.numel() * density) if p.ndim > 1 else p.numel() for p in parameters),
    )


def density(found: Record, module: nn.Module) -> float:
    """Share of a layer's weights, masks and parametrizations applied, that isn't zero; 1 where it has none."""
    if module not in found.densities:
        found.densities[module] = share_of_nonzero(list(weights(module)))
    return found.densities[module]


def weights(module: nn.Module) -> Iterable[Tensor]:
    """The matrices with which a layer computes."""
    names = ["weight"]
    if isinstance(module, RECURRENT):
        names = [name for group in module._all_weights for name in group if name.startswith("weight")]
    with unchanged(module) if is_parametrized(module) else nullcontext():  # one may learn while in training mode
        found = [getattr(module, name, None) for name in names]
    return (w for w in found if isinstance(w, Tensor) and w.ndim > 1 and not w.is_meta)


@torch.no_grad()
def share_of_nonzero(found: list[Tensor]) -> float:
    """Of all elements together; 1 where there are none."""
    total = sum(weight.numel() for weight in found)
    return sum(int(torch.count_nonzero(weight)) for weight in found) / total if total else 1.0


def recurrent_macs(module: nn.Module, call: ModuleCall) -> int:
    """Of a recurrent layer, whose operators don't count: by formula. 0 of any other, and of packed input."""
    if not isinstance(module, RECURRENT) or not (call.inputs and call.outputs):
        return 0
    return count_macs(module, call.inputs[0], call.outputs[0]) or 0


def kind_of(module: nn.Module) -> str:
    """The kind of a layer, as tables name it."""
    return type(module).__name__.lower()


def is_layer(module: nn.Module) -> bool:
    """Whether a module has no parts but parametrizations."""
    return all(name == "parametrizations" for name, _ in module.named_children())


def sample_shape(module: nn.Module, shapes: tuple[Shape, ...]) -> Shape:
    """The shape of one sample; a recurrent layer, and a linear one after it, may have time first, then the batch."""
    if not shapes:
        return ()
    shape = shapes[0]
    axis = 1 if isinstance(module, RECURRENT) and not module.batch_first and len(shape) == 3 else 0
    if isinstance(module, nn.Linear) and len(shape) == 3 and shape[0] != 1:
        axis = 1
    return shape[:axis] + shape[axis + 1 :]
