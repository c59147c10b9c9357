"""One forward pass on example input: which layers a network has, what shapes they see, how often they are called."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.network.cost import RECURRENT, Cost, count_macs


@dataclass(frozen=True, slots=True)
class Site:
    """A layer of the network in its place.

    input_shape, output_shape: of its first call, without the batch axis. calls: per forward pass.
    shared_with: other layers that use the same weight. Its parameters count once, at the first of them.
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
    """All sites in the order of their first call.

    uncounted: {operator: calls} that have weights and no formula.
    outside: the parameters of no site: those of containers, and of layers that the pass doesn't call.
    """

    input_shape: tuple[int, ...]
    sites: tuple[Site, ...]
    uncounted: dict[str, int] = field(default_factory=dict)
    outside: Cost = field(default_factory=Cost)

    @property
    def cost(self) -> Cost:
        """The cost of the whole network: every parameter of the model once."""
        return reduce(add, (site.cost for site in self.sites), self.outside)


@dataclass
class Calls:
    """What a leaf module met during the pass: shapes of its first call, and sums over all calls."""

    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    num_calls: int = 0
    macs: int = 0
    activation_bytes: int = 0


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Sites and cost of `model` on one sample of `example` (N, …); the model is left as it was.

    Raises LightenError where the model fails on its example input.
    """
    leaves, containers = layers_of(model)
    met: dict[nn.Module, Calls] = {}
    uncounted: Counter[str] = Counter()

    def record(module: nn.Module, inputs: tuple, keywords: dict, output: object) -> None:
        given = first_tensor((*inputs, *keywords.values()))
        made = first_tensor(output if isinstance(output, tuple) else (output,))
        shapes = sample_shape(module, given), sample_shape(module, made)
        calls = met.setdefault(module, Calls(module, *shapes))
        calls.num_calls += 1
        if given is not None and made is not None:
            macs = count_macs(module, *shapes)
        else:
            macs = None if any(True for _ in module.parameters()) else 0
        if macs is None:
            uncounted[type(module).__name__] += 1
        calls.macs += macs or 0
        calls.activation_bytes += 0 if made is None else made.numel() * made.element_size()

    def record_container(module: nn.Module, *_: object) -> None:
        uncounted[type(module).__name__] += 1

    handles = [module.register_forward_hook(record, with_kwargs=True) for module in leaves]
    handles += [module.register_forward_hook(record_container) for module in containers]
    try:
        run_quietly(model, example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return Trace(tuple(example.shape[1:]), describe(met, leaves), dict(uncounted), cost_outside(model, met))


def layers_of(model: nn.Module) -> tuple[dict[nn.Module, str], list[nn.Module]]:
    """{layer: name}, and the containers with parameters of their own. A parametrization is a part of its layer."""
    leaves, containers = {}, []
    for name, module in model.named_modules():
        if "parametrizations" in name.split("."):
            continue
        if all(child == "parametrizations" for child, _ in module.named_children()):
            leaves[module] = name
        elif any(True for _ in module.parameters(recurse=False)):
            containers.append(module)
    return leaves, containers


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


def describe(met: dict[nn.Module, Calls], names: dict[nn.Module, str]) -> tuple[Site, ...]:
    """Sites from what was met."""
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
    return tuple(sites)
