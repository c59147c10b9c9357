"""From the stages' own values to the one results document."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata

from torch import Tensor, nn

from lighten.data import SOURCES, Data
from lighten.export.parity import Parity as FileParity
from lighten.measure.accuracy import Accuracy
from lighten.measure.latency import Timing, machine
from lighten.network.cost import Cost
from lighten.network.trace import Trace, trace
from lighten.plan.budget import Bound
from lighten.plan.variants import Variant
from lighten.planning import Planned, Prepared, build
from lighten.report.results import Choice, Epoch, Parity, Refused, Repair, Results, Solve, Totals
from lighten.training.run import Progress


def planned_results(
    prepared: Prepared,
    planned: Planned,
    bounds: Sequence[Bound],
    data: Data,
    mended: Repair | None,
    seconds: Mapping[str, float],
) -> Results:
    """What is known before recovery: choices, refusals, costs."""
    settings = prepared.settings
    lighter = build(prepared, planned.plan, planned.chosen)
    return Results(
        lighten_version=metadata.version("lighten"),
        model=prepared.name or type(prepared.model).__name__,
        data=without_path(data.name),
        out="",
        input_shape=prepared.trace.input_shape,
        budget=tuple(map(str, bounds)),
        runtime=settings.runtime,
        threads=settings.threads,
        batch=settings.batch,
        seed=settings.seed,
        machine=machine(settings.threads),
        before=totals(prepared.trace.cost),
        after=totals(trace(lighter, prepared.example).cost),
        metric=data.metric,
        choices=tuple(choices(prepared, planned.chosen)),
        refused=tuple(Refused(r.site, r.rewrite, r.reason) for r in prepared.refusals),
        repair=mended,
        solves=tuple(Solve(t.bound_ms, t.predicted_ms, t.measured_ms) for t in planned.turns),
        seconds=dict(seconds),
        uncounted=dict(prepared.trace.uncounted),
    )


def choices(prepared: Prepared, chosen: Sequence[Variant]) -> list[Choice]:
    """One entry per site that could be rewritten, 'keep' where it stays."""
    by_site = {variant.site: variant for variant in chosen}
    times = original_times(prepared, list(prepared.variants))
    found = []
    for site, group in prepared.variants.items():
        old = group[0]
        new = by_site.get(site, replace(old, latency_ms=times[site]))
        found.append(
            Choice(
                site=site,
                rewrite=new.rewrite or "keep",
                options=dict(new.options),
                predicted_loss=new.predicted_loss,
                macs=new.cost.macs,
                macs_before=old.cost.macs,
                params=new.cost.params,
                params_before=old.cost.params,
                latency_ms=new.latency_ms,
                latency_ms_before=times[site],
            )
        )
    return found


def original_times(prepared: Prepared, names: Sequence[str]) -> dict[str, float]:
    """{site: milliseconds of the layer as it was}, from the latency table."""
    shapes = {site.name: site.input_shape for site in prepared.trace.sites}
    layers = [(prepared.model.get_submodule(name), shapes[name]) for name in names]
    return dict(zip(names, prepared.table.measure(layers), strict=True))


def final_results(
    known: Results,
    lighter: nn.Module,
    example: Tensor,
    timings: Mapping[str, Timing],
    accuracies: Mapping[str, Accuracy],
    held_out: Sequence[float],
    progress: Progress,
    parity: FileParity,
) -> Results:
    """The whole document; timings and accuracies are of 'before' and 'after', accuracies also of 'untrained'."""
    found: Trace = trace(lighter, example)
    before = timed(known.before, timings["before"], accuracies["before"].value, held_out[0])
    after = timed(totals(found.cost), timings["after"], accuracies["after"].value, held_out[1])
    return replace(
        known,
        before=before,
        after=replace(after, accuracy_untrained=accuracies["untrained"].value),
        num_test_samples=accuracies["after"].num_samples,
        recovery=tuple(Epoch(**record) for record in progress.history),
        parity=Parity(parity.max_relative_error, parity.num_samples, parity.agrees),
    )


def totals(cost: Cost) -> Totals:
    """A cost as the document writes it."""
    return Totals(cost.params, cost.macs, cost.activation_bytes, cost.weight_bytes)


def timed(known: Totals, timing: Timing, accuracy: float, held_out_accuracy: float) -> Totals:
    """Totals with their measurements."""
    return replace(
        known,
        latency_ms=timing.median_ms,
        latency_low_ms=timing.low_ms,
        latency_high_ms=timing.high_ms,
        accuracy=accuracy,
        held_out_accuracy=held_out_accuracy,
    )


def without_path(name: str) -> str:
    """`cifar10:PATH` as `cifar10`: a folder that is passed on shouldn't tell where its maker keeps the data."""
    source = name.partition(":")[0]
    return source if source in SOURCES else name
