"""Every way in which each site may be written: fitted, costed, and, where it is asked for, timed."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lighten.measure.moments import Moments
from lighten.network.cost import CONVOLUTIONS, Cost
from lighten.network.trace import Site, Trace, trace
from lighten.plan.plan import Plan
from lighten.rewrites import REWRITES
from lighten.rewrites.algebra import quadratic_loss, refine
from lighten.rewrites.base import Factors, Options, Shape, is_rewritable, kernel_of, shape_of

NUM_ITERATIONS = 25
MAX_REFINE_FLOP = 4e11  # per variant: wide layers get fewer iterations
DEAD_END = 1.5  # a variant this much lossier than a cheaper one is not worth keeping


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to write a site. rewrite None: as it is, without factors. factors: fitted to the trained weight."""

    site: str
    rewrite: str | None
    options: Options
    predicted_loss: float
    cost: Cost
    factors: Factors | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rewrite (or, with rewrite '*', every rewrite) leaves a site alone."""

    site: str
    rewrite: str
    reason: str


def eligible(
    model: nn.Module, found: Trace, keep: Sequence[str], methods: Sequence[str]
) -> tuple[list[Site], list[Refusal]]:
    """Sites that at least one rewrite takes, and all refusals with their reasons."""
    sites, refusals = [], []
    for site in found.sites:
        layer = model.get_submodule(site.name)
        reason = refuse_site(site, layer, keep)
        if reason:
            refusals.append(Refusal(site.name, "*", reason))
            continue
        if not is_rewritable(layer):
            continue
        reasons = {name: REWRITES[name].refuse(shape_of(layer)) for name in methods}
        refusals += [Refusal(site.name, name, reason) for name, reason in reasons.items() if reason]
        if not all(reasons.values()):
            sites.append(site)
    return sites, refusals


def refuse_site(site: Site, layer: nn.Module, keep: Sequence[str]) -> str | None:
    """Reasons that hold for every rewrite; None where there is none (or where the layer isn't one to rewrite)."""
    if "Transpose" in type(layer).__name__:
        return "it is a transposed convolution, which no rewrite handles"
    if not is_rewritable(layer):
        return None
    if site.name in keep:
        return "kept by request"
    if site.shared_with:
        return f"its weight is also used by '{site.shared_with[0]}'"
    if site.calls > 1:
        return f"it is called {site.calls} times in one forward pass"
    if not isinstance(layer.weight, nn.Parameter):
        return "its weight is parametrized: fold that in first"
    if type(layer) not in (*CONVOLUTIONS, nn.Linear):
        return f"it is a {type(layer).__name__}, which may not compute what its base class does"
    return None


def fit_all(
    model: nn.Module,
    sites: Sequence[Site],
    moments: dict[str, Moments],
    methods: Sequence[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    plan: Plan | None = None,
) -> dict[str, list[Variant]]:
    """{site: variants}, the site as it is first; every variant is fitted in the norm of the site's moments.

    The variants are those of the methods' grids that cost less than the site; with a plan, its choices alone.
    """
    layers = {site.name: model.get_submodule(site.name) for site in sites}
    shapes = {name: shape_of(layer) for name, layer in layers.items()}
    by_name = {site.name: site for site in sites}
    if plan:
        jobs = [(by_name[c.site], c.rewrite, c.options) for c in plan.choices]
    else:
        jobs = [
            (site, name, options)
            for site in sites
            for name in methods
            if not REWRITES[name].refuse(shapes[site.name])
            for options in REWRITES[name].grid(shapes[site.name])
        ]
    costs: dict[tuple, Cost] = {}
    fitted: dict[str, list[Variant]] = {s.name: [Variant(s.name, None, {}, 0.0, s.cost)] for s in sites}

    def cost_of(site: Site, name: str, options: Options) -> Cost:
        key = (repr(layers[site.name]), site.input_shape, name, tuple(options.items()))
        if key not in costs:
            costs[key] = variant_cost(layers[site.name], site, name, options)
        return costs[key]

    def fit(job: tuple[Site, str, Options]) -> Variant | None:
        site, name, options = job
        cost = cost_of(site, name, options)
        if not plan and cost.macs >= site.cost.macs and cost.params >= site.cost.params:
            return None
        factors, loss = fit_variant(kernel_of(layers[site.name]), shapes[site.name], name, options, moments[site.name])
        return Variant(site.name, name, options, loss, cost, factors)

    with one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, variant in enumerate(pool.map(fit, jobs), 1):
            if variant:
                fitted[variant.site].append(variant)
            on_progress(done, len(jobs))
    return fitted


def variant_cost(layer: nn.Module, site: Site, name: str, options: Options) -> Cost:
    """The cost of the layers that would replace a site, from a pass on the meta device."""
    new = REWRITES[name].build(copy.deepcopy(layer).to("meta"), options)
    return trace(new, torch.empty(1, *site.input_shape, device="meta", dtype=layer.weight.dtype)).cost


def fit_variant(w_BOIK: Tensor, shape: Shape, name: str, options: Options, moments: Moments) -> tuple[Factors, float]:
    """Factors of one variant and its predicted loss ½ tr(G ΔW C ΔWᵀ)."""
    rewrite = REWRITES[name]
    c, g = moments.c_BPP, moments.g_BOO
    factors = rewrite.start(w_BOIK, shape, options, c, g)
    size = w_BOIK.shape[1] + c.shape[-1]
    num_iterations = min(NUM_ITERATIONS, int(MAX_REFINE_FLOP / (2 * w_BOIK.numel() * size)))
    if name != "low-rank" and num_iterations:
        factors = refine(factors, lambda f: rewrite.kernel(f, shape, options), w_BOIK, c, g, num_iterations)
    delta = (rewrite.kernel(factors, shape, options) - w_BOIK).flatten(2)
    return factors, float(quadratic_loss(delta, c, g))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Many small problems side by side: one thread for each, or the threads of two libraries fight over the cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(num_threads)


def prune(variants: list[Variant]) -> list[Variant]:
    """Variants that no other one beats in every respect by a margin; the site as it is always stays."""
    kept = [variants[0]]
    for variant in variants[1:]:
        better = any(
            other.cost.macs <= variant.cost.macs
            and other.cost.params <= variant.cost.params
            and other.predicted_loss * DEAD_END < variant.predicted_loss
            for other in variants[1:]
        )
        if not better:
            kept.append(variant)
    return kept
