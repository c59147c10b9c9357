"""Which form of each variant the clock prefers: one algebra, several ways to lay it out as layers."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import nn

from lighten.measure.latency_table import LatencyTable
from lighten.network.trace import Site
from lighten.plan.variants import Variant
from lighten.rewrites import REWRITES
from lighten.rewrites.base import shape_of


def time_variants(
    model: nn.Module,
    sites: Mapping[str, Site],
    variants: Iterable[Variant],
    table: LatencyTable,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Variant]:
    """The same variants in the same order, each with the form that the clock prefers and its time in milliseconds."""
    candidates = [(variant, form) for variant in variants for form in forms_of(model, variant)]
    layers = [(build_on_meta(model, form), sites[form.site].input_shape) for _, form in candidates]
    times = table.measure(layers, on_progress)
    best: dict[int, Variant] = {}
    for (variant, form), time_ms in zip(candidates, times, strict=True):
        known = best.get(id(variant))
        if known is None or time_ms < known.latency_ms:
            best[id(variant)] = replace(form, latency_ms=time_ms)
    return list(best.values())


def forms_of(model: nn.Module, variant: Variant) -> list[Variant]:
    """The variant in each of its forms; the site as it is has one, and so has a variant whose form is given."""
    if variant.rewrite is None or "form" in variant.options:
        return [variant]
    shape = shape_of(model.get_submodule(variant.site))
    forms = REWRITES[variant.rewrite].forms(shape, variant.options)
    return [replace(variant, options=variant.options | {"form": form}) for form in forms]


def build_on_meta(model: nn.Module, variant: Variant) -> nn.Module:
    """The layers of a variant, without memory for their weights."""
    layer = copy.deepcopy(model.get_submodule(variant.site)).to("meta")
    return REWRITES[variant.rewrite].build(layer, variant.options) if variant.rewrite else layer
