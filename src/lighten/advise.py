"""What each layer would save if it were rewritten, by formula and by the clock, and which layers to leave alone.

No data and no weights are needed: costs and times depend on shapes alone. What a rewrite loses of the accuracy is
another question, which `lighten plan` answers.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

from rich import box
from rich.table import Table
from torch import nn

from lighten.measure.latency_table import SHORTEST_MS, LatencyTable
from lighten.network.cost import CONVOLUTIONS, Cost
from lighten.network.count import shapes_shown
from lighten.network.record import Example, record
from lighten.network.table import by
from lighten.network.trace import Site, Trace, sites_of
from lighten.plan.forms import time_variants
from lighten.plan.variants import Variant, eligible, variant_cost
from lighten.report.plain import as_markdown, as_text
from lighten.report.wording import digits, options_text, rewrite_text
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Layer, Options, shape_of

Known = dict[tuple[str, tuple[int, ...], str], list[tuple[Options, Cost]]]  # of layer, input shape, rewrite
SMALLEST_SHARE = 0.005  # a layer can't save more than its share of the whole
CLOCK_MARGIN = 1.1  # times of single layers repeat within some per cent


@dataclass(frozen=True, slots=True)
class Offer:
    """A rewrite of a layer at one rank, and before ÷ after of its MACs, parameters and time.

    options: with the form that the clock prefers, where it was timed. is_lowest: the rank of the fewest MACs in the
    rewrite's grid, which saves most and keeps least of the layer; else the highest rank that still halves the MACs.
    faster: None where no time is known.
    """

    rewrite: str
    options: Options
    is_lowest: bool
    fewer_macs: float
    fewer_params: float
    faster: float | None = None

    @property
    def pays(self) -> bool:
        """By the clock where the time is known, else by formula."""
        return self.fewer_macs > 1 if self.faster is None else self.faster >= CLOCK_MARGIN

    @property
    def verdict(self) -> str:
        """Whether it pays, in words."""
        formula = f"by formula ({digits(self.fewer_macs)}×)"
        pays_by_formula = self.fewer_macs > 1
        if self.faster is None:
            return f"pays {formula}" if pays_by_formula else f"doesn't pay {formula}"
        clock = f"by the clock ({digits(self.faster)}×)"
        if self.pays:
            return f"pays {formula} and {clock}" if pays_by_formula else f"pays {clock}, not {formula}"
        return f"pays {formula}, not {clock}: leave it" if pays_by_formula else f"doesn't pay {formula} or {clock}"


@dataclass(frozen=True, slots=True)
class LayerAdvice:
    """A layer that multiplies. shape: channels, window and input map in words.

    num_outputs: N of the formula, of one group; None where there is no window. threshold: a separable layer has fewer
    MACs where N is larger; None where it never has. reasons: to leave the layer alone. refused: {rewrite: why}, '*' for
    all of them. latency_ms: of the layer as it is.
    """

    name: str
    kind: str
    shape: str
    num_outputs: int | None
    threshold: float | None
    cost: Cost
    share_of_macs: float
    share_of_params: float
    offers: tuple[Offer, ...]
    reasons: tuple[str, ...]
    refused: dict[str, str]
    latency_ms: float | None = None

    def lowest(self, rewrite: str) -> Offer | None:
        """A rewrite's offer at its lowest rank; None where it refuses."""
        return next((o for o in self.offers if o.rewrite == rewrite and o.is_lowest), None)

    @property
    def best(self) -> Offer | None:
        """At its lowest rank, the fastest by the clock; by formula the first that pays, since ranks don't compare."""
        lowest = [offer for offer in self.offers if offer.is_lowest]
        timed = [offer for offer in lowest if offer.faster]
        return max(timed, key=lambda o: o.faster or 0, default=next((o for o in lowest if o.pays), None))

    @property
    def verdict(self) -> str:
        """What to do, in words; a layer that can't be separated may still be lightened otherwise."""
        best = self.best
        judged = f"{rewrite_text(best.rewrite)} {best.verdict}" if best else ""
        if not self.reasons:
            return judged
        remark = f"; but {judged}" if best and best.pays and self.reasons == (self.refused.get("depthwise"),) else ""
        return f"leave alone: {'; '.join(self.reasons)}{remark}"

    def record(self) -> dict[str, Any]:
        """Plain values by name."""
        known = {
            "name": self.name,
            "kind": self.kind,
            "shape": self.shape,
            "num_outputs": self.num_outputs,
            "threshold": self.threshold,
            "macs": self.cost.macs,
            "params": self.cost.params,
            "share_of_macs": self.share_of_macs,
            "share_of_params": self.share_of_params,
            "latency_ms": self.latency_ms,
            "verdict": self.verdict,
            "leave_alone": list(self.reasons),
        }
        offers = [{**asdict(offer), "verdict": offer.verdict} for offer in self.offers]
        return known | {"offers": offers, "refused": [{"rewrite": k, "reason": v} for k, v in self.refused.items()]}


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice on every layer that multiplies, in the network's order. clock: where it was timed; None if it wasn't."""

    title: str
    input_shapes: tuple[tuple[int, ...], ...]
    layers: tuple[LayerAdvice, ...]
    clock: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything, as `lighten advise --json` prints it."""
        layers = [layer.record() for layer in self.layers]
        shapes = [list(shape) for shape in self.input_shapes]
        shown = {"model": self.title, "input": shapes[0] if len(shapes) == 1 else shapes, "clock": self.clock}
        return shown | {"layers": layers, "notes": self.notes()}

    def to_markdown(self) -> str:
        """The overview as a Markdown table, and how to read it as a list."""
        return as_markdown(self.cells(), range(2, 4 + len(REWRITES)), self.notes())

    def to_text(self, width: int = 160) -> str:
        """What a terminal shows, without colours."""
        return as_text(self, width)

    def __str__(self) -> str:
        return self.to_text()

    def __rich__(self) -> Table:
        head, *body = self.cells()
        return rich_table(self.title, head, body, "\n".join(self.notes()), range(2, len(head) - 1))

    def details(self) -> Table:
        """A row per layer and offer: ranks, and what they save of MACs, parameters and time."""
        head = ("layer", "rewrite", "options", "MACs", "parameters", "time", "verdict")
        rows = [
            (
                layer.name or "(whole)",
                rewrite_text(o.rewrite),
                options_text({**o.options}),
                times(o.fewer_macs),
                times(o.fewer_params),
                times(o.faster),
                o.verdict,
            )
            for layer in self.layers
            for o in layer.offers
        ]
        note = "Before ÷ after, of each rewrite's lowest rank and of the highest rank that still halves the MACs."
        return rich_table(self.title, head, rows, note, range(3, 6))

    def cells(self) -> Iterable[tuple[str, ...]]:
        """The header, and the text of every layer."""
        yield ("layer", "shape", "MACs", "N > k²/(k²−1)", *REWRITES, "advice")
        for layer in self.layers:
            offers = (cell(layer.lowest(name), self.clock is not None) for name in REWRITES)
            share = f"{100 * layer.share_of_macs:.1f} %"
            yield (layer.name or "(whole)", layer.shape, share, condition(layer), *offers, layer.verdict)

    def notes(self) -> list[str]:
        """How to read the overview."""
        clock = f", and in brackets time before ÷ after ({self.clock})" if self.clock else ""
        return [
            f"Per rewrite: MACs before ÷ after{clock}, at the lowest rank worth trying, which saves most and keeps "
            "least of the layer." + (" A '?' is lost in the noise." if self.clock else ""),
            "Depthwise separable saves N·k²/(k²+N), at most k²: it has fewer MACs where N, the output channels (of a "
            "group), is above k²/(k²−1), for a window of k² taps.",
            "Accuracy isn't weighed here: `lighten plan` does that, and chooses among all ranks.",
        ]


def advise(
    model: nn.Module,
    example: Example,
    *,
    clock: LatencyTable | None = None,
    title: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Advice:
    """Which rewrites of each layer of `model` pay; the model is left as it was.

    example: as `lighten.count` takes it. clock: times layers and their replacements, each distinct one once per
    machine; without it the advice is by formula alone. Raises LightenError where the model fails.
    """
    recorded = record(model, example)
    found = sites_of(recorded)
    sites, refusals = eligible(model, found, (), tuple(REWRITES))
    known: Known = {}
    variants = [v for site in sites for v in variants_of(cast(Layer, model.get_submodule(site.name)), site, known)]
    by_name = {site.name: site for site in sites}
    if clock:
        variants = time_variants(model, by_name, variants, clock, on_progress)
    grouped: dict[str, list[Variant]] = {name: [] for name in by_name}
    for variant in variants:
        grouped[variant.site].append(variant)
    refused: dict[str, dict[str, str]] = {}
    for refusal in refusals:
        refused.setdefault(refusal.site, {})[refusal.rewrite] = refusal.reason
    modules = dict(model.named_modules())
    layers = tuple(
        layer_advice(site, modules[site.name], found, grouped.get(site.name, []), refused.get(site.name, {}))
        for site in found.sites
        if site.cost.macs
    )
    return Advice(title or type(model).__name__, shapes_shown(recorded), layers, place_of(clock) if clock else None)


def place_of(clock: LatencyTable) -> str:
    """As onnxruntime, 1 thread, batch 1."""
    return f"{clock.runtime.name}, {clock.threads} {'thread' if clock.threads == 1 else 'threads'}, batch {clock.batch}"


def variants_of(layer: Layer, site: Site, known: Known) -> list[Variant]:
    """The site as it is, then each rewrite at its lowest rank and at the highest that still halves the MACs.

    known: costs of the grids of layers that were met before, which equal layers share.
    """
    layer = copy.deepcopy(layer).to("meta")
    variants = [Variant(site.name, None, {}, 0.0, site.cost)]
    for name, rewrite in REWRITES.items():
        if rewrite.refuse(shape_of(layer)):
            continue
        key = (repr(layer), site.input_shape, name)
        if key not in known:
            known[key] = [(o, variant_cost(layer, site, name, o)) for o in rewrite.grid(shape_of(layer))]
        grid = sorted(known[key], key=lambda pair: (pair[1].macs, pair[1].params))
        halving = [pair for pair in grid[1:] if 2 * pair[1].macs <= site.cost.macs]
        variants += [Variant(site.name, name, options, 0.0, cost) for options, cost in (grid[0], *halving[-1:])]
    return variants


def layer_advice(
    site: Site, layer: nn.Module, found: Trace, variants: list[Variant], refused: dict[str, str]
) -> LayerAdvice:
    """The advice on one site. variants: as `variants_of` gives them, or none; refused: {rewrite: reason}."""
    shape = shape_of(layer) if isinstance(layer, CONVOLUTIONS) and "*" not in refused else None
    shares = site.cost.macs / found.cost.macs, site.cost.params / max(1, found.cost.params)
    offers = offers_of(variants)
    return LayerAdvice(
        site.name,
        site.kind,
        shape_words(layer, site),
        shape.num_outputs if shape else None,
        threshold(shape.num_taps) if shape and shape.num_taps > 1 else None,
        site.cost,
        *shares,
        offers,
        tuple(reasons(layer, site, shares, offers, refused)),
        refused,
        variants[0].latency_ms if variants else None,
    )


def offers_of(variants: list[Variant]) -> tuple[Offer, ...]:
    """What each variant saves against the first one, the site as it is."""
    offers, met = [], set()
    for variant in variants[1:]:
        before, after = variants[0].cost, variant.cost
        ratios = before.macs / after.macs, before.params / after.params, faster(variants[0], variant)
        offers.append(Offer(str(variant.rewrite), variant.options, variant.rewrite not in met, *ratios))
        met.add(variant.rewrite)
    return tuple(offers)


def faster(before: Variant, after: Variant) -> float | None:
    """Time ÷ time; None where they weren't timed, or where one of them is lost in the noise."""
    if before.latency_ms is None or after.latency_ms is None:
        return None
    is_lost = min(before.latency_ms, after.latency_ms) <= SHORTEST_MS
    return None if is_lost else before.latency_ms / after.latency_ms


def reasons(
    layer: nn.Module, site: Site, shares: tuple[float, float], offers: tuple[Offer, ...], refused: dict[str, str]
) -> Iterable[str]:
    """Why to leave a layer alone, if there is a reason."""
    if "*" in refused:
        yield refused["*"]
        return
    if not offers and not refused:
        yield f"no rewrite takes a layer of the kind '{site.kind}'"
        return
    usual = "low-rank" if isinstance(layer, nn.Linear) else "depthwise"
    if usual in refused:
        yield refused[usual]
    elif all(offer.fewer_macs <= 1 for offer in offers):
        yield "no rewrite has fewer MACs"
    if isinstance(layer, CONVOLUTIONS) and is_map_too_small(layer, site):
        yield f"its map of {by(site.input_shape[1:])} is smaller than its window of {by(layer.kernel_size)}"
    if max(shares) < SMALLEST_SHARE:
        yield f"it has under {100 * SMALLEST_SHARE:g} % of the MACs and of the parameters"


def is_map_too_small(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, site: Site) -> bool:
    """Whether the dilated window is larger than the map along every axis, so that it reads mostly padding."""
    extents = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return all(size < extent for size, extent in zip(site.input_shape[1:], extents, strict=True))


def threshold(num_taps: int) -> float:
    """The number of outputs N above which N·K/(K+N) > 1, for K taps: K/(K−1); a window of one tap never pays."""
    return num_taps / (num_taps - 1) if num_taps > 1 else math.inf


def separable_ratio(num_outputs: float, num_taps: int) -> float:
    """MACs of a convolution ÷ those of depthwise and pointwise: I·N·K ÷ (I·K + I·N) per position, whatever I is."""
    return num_outputs * num_taps / (num_taps + num_outputs)


def shape_words(layer: nn.Module, site: Site) -> str:
    """As 64→128, 3×3 on 28×28; of what is no layer of ours the shape that it makes."""
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features}→{layer.out_features}"
    if not isinstance(layer, CONVOLUTIONS):
        return by(site.output_shape)
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    channels = f"{layer.in_channels}→{layer.out_channels}"
    return f"{channels}{groups}, {by(layer.kernel_size)} on {by(site.input_shape[1:])}"


def condition(layer: LayerAdvice) -> str:
    """The threshold with the layer's own numbers, as 64 > 1.125; 'never' for a window of one tap."""
    if layer.num_outputs is None:
        return ""
    if layer.threshold is None:
        return "never"
    return f"{layer.num_outputs} {'>' if layer.num_outputs > layer.threshold else '≤'} {layer.threshold:.4g}"


def cell(offer: Offer | None, is_timed: bool) -> str:
    """Of the overview: by formula, and under it by the clock; '?' for a time that is lost in the noise."""
    if offer is None:
        return "–"
    return times(offer.fewer_macs) + (f"\n({times(offer.faster) or '?'})" if is_timed else "")


def times(ratio: float | None) -> str:
    """As 8.3×; nothing where it wasn't measured."""
    return "" if ratio is None else f"{digits(ratio)}×"


def rich_table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]], note: str, right: range) -> Table:
    """A table for the terminal; right: columns of numbers."""
    table = Table(title=title, caption=note, caption_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for i, name in enumerate(head):
        width = 18 if name == head[-1] else None  # sentences
        table.add_column(name, justify="right" if i in right else "left", overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*row)
    return table
