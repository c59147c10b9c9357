"""The main job: a trained network, data and a budget in; a lighter network, proven, out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lighten.data.batches import Data, Loader
from lighten.data.split import as_data
from lighten.errors import BudgetError, LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.folder import CHECKPOINT, ONNX, REPORT, RESULTS, open_partial, publish, save_network
from lighten.measure.accuracy import divergence, evaluate, teacher_logits
from lighten.measure.latency import time_networks
from lighten.plan.budget import Bound, parse_budget
from lighten.plan.plan import Plan
from lighten.planning import (
    Planned,
    Prepared,
    Settings,
    absolute_limits,
    build,
    follow_plan,
    make_plan,
    plan_of,
    prepare,
)
from lighten.progress import OnProgress, Stages, silent
from lighten.recover.distil import Recipe, distil
from lighten.recover.job import Start, fingerprint, load_start, save_start
from lighten.recover.repair import repair
from lighten.report.html import write_report
from lighten.report.outcome import final_results, planned_results
from lighten.report.results import Divergence, Repair, Results, write_results
from lighten.training.run import Progress

NUM_REPAIR_IMAGES = 1024
NUM_HELD_OUT_IMAGES = 512  # for the repair's own decisions
NUM_SWAPS, NUM_SWAP_IMAGES = 24, 256  # single rewrites whose loss is measured beside the predicted one
NUM_PROBES = 5  # of a `drop` budget
MIN_SHARE = 0.05  # of the original's time: no probe asks for less


@dataclass(frozen=True, slots=True)
class Lightened:
    """What a job gives back: the lighter network in evaluation mode, its plan, and everything measured."""

    model: nn.Module
    plan: Plan
    results: Results


def shrink(
    model: nn.Module,
    data: Data | object,
    budget: str | Sequence[str] = (),
    *,
    out: str | Path,
    plan: Plan | None = None,
    name: str | None = None,
    weights: str | None = None,
    settings: Settings | None = None,
    recipe: Recipe | None = None,
    resume: bool = False,
    force: bool = False,
    show: OnProgress = silent,
) -> Lightened:
    """Lighten a trained network within a budget and write the result to the folder `out`.

    data: a `Data`, or datasets or loaders as `lighten.as_data` takes them. budget: as `latency<=0.5x`, one or several;
    or a plan, perhaps edited by hand, that is followed as it stands.
    name: the text that rebuilds the network, kept in the folder; weights: where they came from, for the record.
    Raises LightenError for wrong input and BudgetError where the budget can't be met; the model stays as it was.
    """
    if plan and budget:
        raise LightenError("give a budget or a plan, not both: a plan is followed as it stands")
    bounds, data, out = () if plan else parse_budget(budget), as_data(data), Path(out)
    settings, recipe = settings or Settings(), recipe or Recipe()
    torch.manual_seed(settings.seed)
    stages = Stages(show)
    folder = open_partial(out, force, resume)
    original = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    start = load_start(folder) if resume else None
    if start is not None:
        check_same_job(start, original, bounds, plan, folder)
    else:
        prepared = prepare(original, name, data, settings, stages, plan)
        start = start_within(prepared, bounds, data, recipe, stages)
        start = replace(start, results=replace(start.results, weights=weights, out=out.name))
        save_start(folder, start)
    lighter = start.rebuild(original)
    progress = recover(lighter, original, start.plan, data, recipe, stages, folder)
    results = verify(original, lighter, start, progress, data, bounds, settings, stages, folder)
    save_network(folder, lighter, start.plan)
    write_results(results, folder / RESULTS)
    write_report(results, folder / REPORT)
    publish(out)
    return Lightened(lighter, start.plan, results)


def check_same_job(start: Start, original: nn.Module, bounds: Sequence[Bound], plan: Plan | None, folder: Path) -> None:
    """Raise LightenError where a job is to be resumed with another network, budget or plan than it was begun with."""
    asked, begun = tuple(map(str, bounds)), start.results.budget
    if asked != begun:
        texts = [", ".join(budget) or "a plan" for budget in (begun, asked)]
        raise LightenError(
            f"the job in '{folder}' was begun for {texts[0]}, not for {texts[1]}: start anew with --force"
        )
    if plan and not follows(start.plan, plan):
        raise LightenError(f"the job in '{folder}' follows another plan: start anew with --force")
    if start.original != fingerprint(original):
        raise LightenError(f"the job in '{folder}' is of another network, or of other weights: start anew with --force")


def follows(made: Plan, given: Plan) -> bool:
    """Whether a plan is what became of the given one: the clock has chosen the forms that it left open."""
    choices = {choice.site: choice for choice in made.choices}
    return choices.keys() == {choice.site for choice in given.choices} and all(
        choices[choice.site].rewrite == choice.rewrite
        and choice.options.items() <= choices[choice.site].options.items()
        for choice in given.choices
    )


def start_within(prepared: Prepared, bounds: Sequence[Bound], data: Data, recipe: Recipe, stages: Stages) -> Start:
    """A plan within the bounds, or the given one, applied and repaired: what recovery starts from."""
    if bounds:
        limits = absolute_limits(bounds, prepared, stages)
        for bound in bounds:
            if bound.quantity == "drop":
                limits = limits_within_drop(prepared, limits, bound.limit, data, recipe, stages)
        planned = make_plan(prepared, limits, stages)
    else:
        planned = follow_plan(prepared, stages)
    lighter, mended = repaired(prepared, planned, data, stages)
    results = planned_results(prepared, planned, bounds, data, mended, stages.seconds)
    results = replace(results, divergence=single_swaps(prepared, planned, data, stages))
    return Start(planned.plan, lighter.state_dict(), results, fingerprint(prepared.model))


def single_swaps(prepared: Prepared, planned: Planned, data: Data, stages: Stages) -> tuple[Divergence, ...]:
    """Predicted against measured loss of the plan's rewrites, each alone in the original, at most NUM_SWAPS of them."""
    step = -(-len(planned.chosen) // NUM_SWAPS)
    held_out = first_images(data.held_out, NUM_SWAP_IMAGES)
    with stages.stage("check"):
        logits = teacher_logits(prepared.model, held_out)
        found = []
        for variant in planned.chosen[::step] if step else ():
            swapped = build(prepared, plan_of(prepared, [variant]), [variant])
            loss = divergence(swapped, held_out, logits, prepared.settings.temperature)
            found.append(Divergence(variant.site, variant.rewrite, variant.predicted_loss, loss))
    return tuple(found)


def repaired(prepared: Prepared, planned: Planned, data: Data, stages: Stages) -> tuple[nn.Module, Repair]:
    """The lighter network, repaired without gradients, and its held-out loss before and after."""
    lighter = build(prepared, planned.plan, planned.chosen)
    held_out = first_images(data.held_out, NUM_HELD_OUT_IMAGES)
    batches = [inputs for inputs, _ in first_images(data.calibration, NUM_REPAIR_IMAGES)]
    with stages.stage("repair"):
        logits = teacher_logits(prepared.model, held_out)
        mended = repair(
            prepared.model,
            lighter,
            planned.plan.choices,
            {variant.site: variant.factors for variant in planned.chosen},
            prepared.moments,
            batches,
            lambda network: divergence(network, held_out, logits, prepared.settings.temperature),
            stages.count,
        )
    return lighter, Repair(mended.before, mended.after)


def first_images(loader: Loader, num_images: int) -> list[tuple[Tensor, Tensor]]:
    """The first batches that hold `num_images`, kept in memory."""
    batches, seen = [], 0
    for inputs, labels in loader:
        batches.append((inputs[: num_images - seen], labels[: num_images - seen]))
        seen += len(batches[-1][0])
        if seen >= num_images:
            break
    return batches


def recover(
    lighter: nn.Module,
    original: nn.Module,
    plan: Plan,
    data: Data,
    recipe: Recipe,
    stages: Stages,
    folder: Path | None,
    stage: str = "recover",
) -> Progress:
    """Distillation from the original, from the last checkpoint on where there is one; `stage`: what it is for."""
    if recipe.epochs == 0:
        return Progress()

    def show(progress: Progress) -> None:
        stages.show(stage, min(progress.share, 1.0), progress.describe(recipe.epochs))

    with stages.stage(stage):
        checkpoint = folder / CHECKPOINT if folder else None
        names = [choice.site for choice in plan.choices]
        progress = distil(lighter, original, data, recipe, names, checkpoint, resume=True, on_progress=show)
    if folder:
        stages.seconds[stage] = round(progress.seconds, 3)  # with what was spent before a break
    return progress


def limits_within_drop(
    prepared: Prepared,
    limits: dict[str, float],
    allowed: float,
    data: Data,
    recipe: Recipe,
    stages: Stages,
) -> dict[str, float]:
    """Limits of the fastest network whose held-out accuracy, after a short recovery, stays within the drop.

    The search halves the range of latency (geometrically) NUM_PROBES times; each probe is planned, repaired and
    recovered for an eighth of the recipe.
    """
    absolute_limits([Bound("latency", 1.0, True)], prepared, stages)
    whole = prepared.original.median_ms
    wanted = evaluate(prepared.model, data.held_out).value - allowed
    short = replace(recipe, epochs=-(-recipe.epochs // 8), minutes=recipe.minutes and recipe.minutes / 8)
    good, bad = limits.get("latency", whole), MIN_SHARE * whole
    best: dict[str, float] | None = None
    for _ in range(NUM_PROBES):
        bound = (good * bad) ** 0.5
        try:
            planned = make_plan(prepared, limits | {"latency": bound}, stages)
        except BudgetError:
            bad = bound
            continue
        lighter, _ = repaired(prepared, planned, data, stages)
        recover(lighter, prepared.model, planned.plan, data, short, stages, None, "search")
        if evaluate(lighter, data.held_out).value >= wanted:
            good, best = bound, limits | {"latency": bound}
        else:
            bad = bound
    if best is None:
        raise BudgetError(
            f"no faster network stays within {allowed:g} points of the original's held-out accuracy: the nearest "
            f"tried takes {bad / whole:.2f}x of its time; allow a larger drop or more epochs"
        )
    return best


def verify(
    original: nn.Module,
    lighter: nn.Module,
    start: Start,
    progress: Progress,
    data: Data,
    bounds: Sequence[Bound],
    settings: Settings,
    stages: Stages,
    folder: Path,
) -> Results:
    """Export, compare the file with PyTorch, time both networks side by side, and look at the test set, once."""
    example = next(iter(data.held_out))[0]
    lighter.eval()
    with stages.stage("export"):
        export_onnx(lighter, example[:2], folder / ONNX)
        parity = check_parity(lighter, folder / ONNX, example[:64])
    with stages.stage("verify"):
        networks = {"before": (original, example), "after": (lighter, example)}
        timings = time_networks(networks, settings.runtime, settings.threads, settings.batch)
        seen = data.test or data.held_out
        accuracies = {
            "before": evaluate(original, seen),
            "untrained": evaluate(start.rebuild(original), seen),
            "after": evaluate(lighter, seen),
        }
        held_out = [evaluate(network, data.held_out).value for network in (original, lighter)]
    results = final_results(start.results, lighter, example, timings, accuracies, held_out, progress, parity)
    missed = [bound for bound in bounds if bound.quantity == "drop" and held_out[0] - held_out[1] > bound.limit]
    if missed:
        note = f"The held-out accuracy fell by {held_out[0] - held_out[1]:.2f} points: {missed[0]} is missed."
        results = replace(results, notes=(*results.notes, note))
    return replace(results, seconds=start.results.seconds | stages.seconds)
