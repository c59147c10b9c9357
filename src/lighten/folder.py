"""A lightened network on disk: plan, weights, ONNX file, results and report. No pickled code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from lighten.errors import LightenError
from lighten.files import write_with
from lighten.models import parse_model
from lighten.models.weights import load_weights
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Plan, load_plan

PLAN, WEIGHTS, ONNX, RESULTS, REPORT = "plan.json", "weights.safetensors", "model.onnx", "results.json", "report.html"
CHECKPOINT, PLANNED = "checkpoint.pt", "planned.pt"


def load(folder: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """The lightened network, in evaluation mode.

    model: the original's constructor or an instance of it (any weights); not needed where the folder names a
    built-in network or an importable callable. Raises LightenError where plan or weights don't fit.
    """
    folder = Path(folder)
    plan = load_plan(folder / PLAN)
    if model is None:
        if plan.model is None:
            raise LightenError(
                f"'{folder}' doesn't name its network: give its constructor, lighten.load(folder, model)"
            )
        model = parse_model(plan.model).build()
    lighter = apply_plan(model if isinstance(model, nn.Module) else model(), plan)
    load_weights(lighter, folder / WEIGHTS)
    return lighter.eval()


def save_network(folder: Path, lighter: nn.Module, plan: Plan) -> None:
    """Write plan and weights."""
    plan.save(folder / PLAN)
    state = lighter.state_dict()  # cloned below, since two layers may share a weight
    weights = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    write_with(folder / WEIGHTS, lambda temporary: temporary.write_bytes(save(weights)))


def partial_folder(out: Path) -> Path:
    """Where a job works until it is done: beside the folder that it makes."""
    return out.with_name(f"{out.name}.partial")


def open_partial(out: Path, force: bool, resume: bool) -> Path:
    """The working folder; raises LightenError where `out` exists and may not be replaced."""
    partial = partial_folder(out)
    if out.exists() and not force:
        raise LightenError(f"'{out}' exists: choose another --out, or replace it with --force")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / PLAN).exists())):
        raise LightenError(f"'{out}' isn't a lightened network's folder: --force doesn't replace it")
    if partial.exists() and not partial.is_dir():
        raise LightenError(f"'{partial}' is in the way: a job works in a folder of that name")
    if partial.exists() and any(partial.iterdir()) and not resume:
        if not force:
            raise LightenError(f"'{partial}' holds an unfinished job: go on with --resume, or drop it with --force")
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LightenError(f"cannot make the folder '{partial}': {error.strerror}") from error
    return partial


def publish(out: Path) -> None:
    """Put the finished working folder in the place of `out`; an old folder goes only when the new one stands."""
    partial, old = partial_folder(out), out.with_name(f"{out.name}.old")
    for left in (partial / CHECKPOINT, partial / PLANNED, *partial.glob(".*.part")):
        left.unlink(missing_ok=True)
    replaces = out.exists()
    try:
        if replaces:
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        if replaces and not out.exists():
            old.rename(out)
        raise LightenError(f"cannot write '{out}': {error.strerror}; the result is in '{partial}'") from error
    if replaces:
        shutil.rmtree(old, ignore_errors=True)
