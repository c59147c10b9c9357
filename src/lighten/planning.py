"""The first half of the flow: a trained network, data and a budget in; a plan with fitted factors out."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lighten.data.batches import Data
from lighten.errors import LightenError
from lighten.measure.latency import Timing, clock_beside, time_networks
from lighten.measure.latency_table import LatencyTable
from lighten.measure.moments import Moments, collect
from lighten.network.trace import Site, Trace, trace
from lighten.plan.apply import apply_plan
from lighten.plan.budget import Bound, parse_budget
from lighten.plan.choose import Turn, choose
from lighten.plan.forms import time_variants
from lighten.plan.plan import Choice, Plan, check_plan
from lighten.plan.variants import Refusal, Variant, eligible, fit_all, prune
from lighten.progress import OnProgress, Stages
from lighten.references import nearest
from lighten.rewrites import REWRITES

if TYPE_CHECKING:
    from lighten.report.results import Results


@dataclass(frozen=True, slots=True)
class Settings:
    """How a job works; the defaults suit a small network on a CPU.

    methods: names of rewrites, empty for all. keep: names of layers that stay. memory_limit_bytes: of the moments.
    runtime, threads, batch: where and how latency is measured. temperature: of the answers by which losses are
    predicted and repaired; above 1 where the network has learnt the calibration images by heart.
    """

    methods: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    seed: int = 0
    memory_limit_bytes: int = 2 << 30
    temperature: float = 1.0


@dataclass
class Prepared:
    """Everything known of a network before a choice is made; one preparation serves many budgets."""

    model: nn.Module
    name: str | None
    example: Tensor
    trace: Trace
    refusals: list[Refusal]
    moments: dict[str, Moments]
    variants: dict[str, list[Variant]]
    settings: Settings
    table: LatencyTable
    is_timed: bool = False
    original: Timing | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the fitted variants behind it in the network's order, and the latency loop's turns."""

    plan: Plan
    chosen: tuple[Variant, ...]
    turns: tuple[Turn, ...] = field(default=())


def prepare(
    model: nn.Module, name: str | None, data: Data, settings: Settings, stages: Stages, plan: Plan | None = None
) -> Prepared:
    """Trace the network, collect its moments, and fit every variant of every site; with a plan, its choices alone."""
    methods = check_methods(settings.methods)
    with stages.stage("trace"):
        example = check_data(model, data)
        found = trace(model, example)
        check_keep(settings.keep, model)
        sites, refusals = eligible(model, found, settings.keep, methods)
        if plan:
            sites = sites_of_plan(plan, model, sites, refusals)
        if not sites:
            reasons = "; ".join(sorted({f"'{r.site}': {r.reason}" for r in refusals})[:3]) or "it has no convolutions"
            raise LightenError(f"no layer of this network can be rewritten ({reasons})")
    model.eval()
    with stages.stage("moments"):
        names = [site.name for site in sites]
        limit, temperature = settings.memory_limit_bytes, settings.temperature
        moments = collect(model, names, data.calibration, limit, settings.seed, temperature)
    with stages.stage("variants"):
        fitted = fit_all(model, sites, moments, methods, stages.count, plan)
        variants = fitted if plan else {site: prune(group) for site, group in fitted.items()}
    table = LatencyTable(None, settings.runtime, settings.threads, settings.batch)
    return Prepared(model, name, example, found, refusals, moments, variants, settings, table)


def make_plan(prepared: Prepared, limits: dict[str, float], stages: Stages) -> Planned:
    """The best plan within the limits {quantity: what the whole network may spend; latency in milliseconds}."""
    if "latency" in limits and not prepared.is_timed:
        time_all(prepared, stages)
    original_ms = prepared.original.median_ms if prepared.original else None
    with stages.stage("solve"):
        measure = whole_network_clock(prepared) if "latency" in limits else None
        chosen, turns = choose(prepared.variants, prepared.trace.cost, limits, original_ms, measure)
    changed = [variant for variant in chosen if variant.rewrite]
    if "latency" not in limits:
        with stages.stage("latency"):
            changed = time_variants(prepared.model, sites_of(prepared), changed, prepared.table, stages.count)
    return Planned(plan_of(prepared, changed), tuple(changed), turns)


def follow_plan(prepared: Prepared, stages: Stages) -> Planned:
    """The plan that the network was prepared with, each choice fitted; the clock chooses forms that it leaves open."""
    chosen = [group[1] for group in prepared.variants.values()]
    with stages.stage("latency"):
        chosen = time_variants(prepared.model, sites_of(prepared), chosen, prepared.table, stages.count)
    return Planned(plan_of(prepared, chosen), tuple(chosen))


def sites_of_plan(plan: Plan, model: nn.Module, sites: list[Site], refusals: list[Refusal]) -> list[Site]:
    """The sites that a plan names, in the network's order; raises LightenError for one that can't be rewritten."""
    check_plan(plan, model)
    named = {choice.site for choice in plan.choices}
    found = [site for site in sites if site.name in named]
    for name in sorted(named - {site.name for site in found}):
        reason = next((r.reason for r in refusals if r.site == name), "the network never calls it")
        raise LightenError(f"the plan rewrites '{name}', which can't be: {reason}")
    return found


def plan_network(
    model: nn.Module, data: Data, budget: str | Sequence[str], name: str | None, settings: Settings, show: OnProgress
) -> tuple[Plan, "Results"]:
    """A plan within the budget, without any training, and what is known of it."""
    from lighten.report.outcome import planned_results

    bounds, stages = parse_budget(budget), Stages(show)
    if any(bound.quantity == "drop" for bound in bounds):
        raise LightenError("a drop of accuracy can only be bounded where recovery runs: use `lighten shrink`")
    prepared = prepare(copy.deepcopy(model), name, data, settings, stages)
    planned = make_plan(prepared, absolute_limits(bounds, prepared, stages), stages)
    return planned.plan, planned_results(prepared, planned, bounds, data, None, stages.seconds)


def time_all(prepared: Prepared, stages: Stages) -> None:
    """Time every variant in its place, choosing its form, and the whole original network."""
    with stages.stage("latency"):
        flat = [variant for group in prepared.variants.values() for variant in group]
        timed = time_variants(prepared.model, sites_of(prepared), flat, prepared.table, stages.count)
        by_site: dict[str, list[Variant]] = {site: [] for site in prepared.variants}
        for variant in timed:
            by_site[variant.site].append(variant)
        prepared.variants, prepared.is_timed = by_site, True
        prepared.original = time_original(prepared)


def time_original(prepared: Prepared) -> Timing:
    """The whole original network, in the runtime that ships."""
    settings = prepared.settings
    networks = {"original": (prepared.model, prepared.example)}
    return time_networks(networks, settings.runtime, settings.threads, settings.batch)["original"]


def whole_network_clock(prepared: Prepared) -> Callable[[list[Variant]], float]:
    """A clock for whole networks in milliseconds of `prepared.original`: each is timed in turn with the original."""
    settings = prepared.settings
    place = (settings.runtime, settings.threads, settings.batch)
    ratio_of = clock_beside(prepared.model, prepared.example, *place)

    def measure(chosen: list[Variant]) -> float:
        lighter = build(prepared, plan_of(prepared, [v for v in chosen if v.rewrite]), chosen)
        return prepared.original.median_ms * ratio_of(lighter)

    return measure


def build(prepared: Prepared, plan: Plan, chosen: Sequence[Variant]) -> nn.Module:
    """The lighter network with its fitted factors, in evaluation mode."""
    factors = {variant.site: variant.factors for variant in chosen if variant.rewrite}
    return apply_plan(prepared.model, plan, factors).eval()


def plan_of(prepared: Prepared, changed: Sequence[Variant]) -> Plan:
    """The plan file's content."""
    choices = tuple(Choice(v.site, v.rewrite, v.options) for v in changed)
    return Plan(prepared.name, prepared.trace.input_shape, choices)


def sites_of(prepared: Prepared) -> dict:
    """{name: site}."""
    return {site.name: site for site in prepared.trace.sites}


def absolute_limits(bounds: Sequence[Bound], prepared: Prepared, stages: Stages) -> dict[str, float]:
    """What the bounds allow, in MACs, parameters and milliseconds; `drop` is not one of them."""
    if any(b.quantity == "latency" for b in bounds) and prepared.original is None:
        with stages.stage("latency"):
            prepared.original = time_original(prepared)
    cost = prepared.trace.cost
    whole = {"macs": cost.macs, "params": cost.params}
    if prepared.original:
        whole["latency"] = prepared.original.median_ms
    return {b.quantity: b.absolute(whole[b.quantity]) for b in bounds if b.quantity != "drop"}


def check_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """All rewrites, or the named ones; raises LightenError for a name that none has."""
    for method in methods:
        if method not in REWRITES:
            hint = nearest(method, REWRITES) or f"; known are {', '.join(REWRITES)}"
            raise LightenError(f"there is no method '{method}'{hint}")
    return tuple(methods) or tuple(REWRITES)


def check_keep(keep: Sequence[str], model: nn.Module) -> None:
    """Raise LightenError where a layer to keep doesn't exist."""
    names = dict(model.named_modules())
    for name in keep:
        if name not in names:
            raise LightenError(f"there is no layer '{name}' to keep{nearest(name, names)}")


def check_data(model: nn.Module, data: Data) -> Tensor:
    """The first calibration batch; raises LightenError where data and model don't fit one another."""
    batch = next(iter(data.calibration), None)
    if batch is None:
        raise LightenError(f"the data '{data.name}' hold no calibration images")
    inputs = batch[0]
    if not inputs.isfinite().all():
        raise LightenError(f"the calibration data of '{data.name}' hold values that aren't finite (NaN or infinity)")
    trace(model, inputs[:1])
    with torch.no_grad():
        logits = model.eval()(inputs[:2])
    data.check_logits(logits)
    return inputs
