"""The one document that a job leaves: everything that was asked, chosen and measured, as results.json."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from lighten.errors import LightenError
from lighten.files import write_with

VERSION = 1
RESULTS_NAME = "results.json"
REPORT_NAME = "report.html"


@dataclass(frozen=True, slots=True)
class Totals:
    """What the whole network costs and reaches; None where it was not measured.

    macs, activation_bytes: of one sample. latency: median and spread in the runtime of the job.
    accuracy: per cent of the test samples; accuracy_untrained: the same before any gradient step.
    """

    params: int
    macs: int
    activation_bytes: int
    weight_bytes: int
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    accuracy: float | None = None
    accuracy_untrained: float | None = None
    held_out_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the plan does at one site; rewrite is 'keep' where the site stays as it was."""

    site: str
    rewrite: str
    options: dict[str, object]
    predicted_loss: float
    macs: int
    macs_before: int
    params: int
    params_before: int
    latency_ms: float | None = None
    latency_ms_before: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A rewrite that does not fit a site, and why."""

    site: str
    rewrite: str
    reason: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """Predicted loss of one swap, against the divergence of the outputs measured with this swap alone."""

    site: str
    rewrite: str
    predicted_loss: float
    measured: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of recovery; seconds are since its start, accuracy in per cent."""

    epoch: int
    seconds: float
    loss: float
    held_out_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Repair:
    """Held-out loss before and after the repair without gradients."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Parity:
    """The exported file against PyTorch; the error is relative to the scale of the output."""

    max_relative_error: float
    num_samples: int
    agrees: bool


@dataclass(frozen=True, slots=True)
class Solve:
    """One turn of the latency loop: the bound given to the solver, what it predicted, what the clock said (ms)."""

    bound: float
    predicted_ms: float
    measured_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All of one job. input_shape: of one sample; metric: what accuracy means; seconds: {stage: s}."""

    version: int = VERSION
    lighten_version: str
    model: str
    weights: str | None = None
    data: str
    out: str
    input_shape: tuple[int, ...]
    budget: tuple[str, ...]
    runtime: str
    threads: int
    batch: int
    seed: int
    machine: dict[str, object]
    before: Totals
    after: Totals
    metric: str = "top1"
    num_test_samples: int = 0
    choices: tuple[Choice, ...]
    refused: tuple[Refused, ...] = ()
    divergence: tuple[Divergence, ...] = ()
    recovery: tuple[Epoch, ...] = ()
    repair: Repair | None = None
    parity: Parity | None = None
    solves: tuple[Solve, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def to_json(results: Results) -> dict[str, Any]:
    """Plain JSON values; a number that is not finite becomes null."""
    return plain(asdict(results))


def from_json(document: object, where: str = "the results") -> Results:
    """Results from plain JSON values; null where a number must stand is read as NaN, unknown fields are left out.

    Raises LightenError, which names the field, where one is missing or of the wrong type.
    """
    version = document.get("version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise LightenError(f"{where} has version {version}, but this lighten reads versions up to {VERSION}")
    return decode(Results, document, where)


def write_results(results: Results, path: Path | str) -> None:
    """Write results.json whole or not at all."""
    write_whole(json.dumps(to_json(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n", Path(path))


def read_results(path: Path | str) -> Results:
    """Read results.json; LightenError where it is missing, broken or not one of ours."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LightenError(f"cannot read '{path}': {error.strerror}; give a folder that a job has written") from error
    except ValueError as error:
        raise LightenError(f"'{path}' is not a JSON document: {error}") from error
    return from_json(document, f"'{path}'")


def write_whole(text: str, path: Path) -> None:
    """Write UTF-8, whatever the locale; a reader sees the old file or the new one, never a part."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def plain(value: Any) -> Any:
    """JSON values for dicts, sequences and the scalars of numpy and torch."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the annotated type `hint`; `where` names it in errors."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return decode_record(hint, value, where)
    if origin is UnionType:
        return None if value is None else decode(args[0], value, where)
    if origin is tuple:
        items = expect(list, value, where)
        return tuple(decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin is dict:
        return {key: decode(args[1], item, f"{where}.{key}") for key, item in expect(dict, value, where).items()}
    if hint is object:
        return value
    if hint is float and (value is None or type(value) is int):
        return math.nan if value is None else float(value)
    return expect(hint, value, where)


def decode_record(record: type, value: Any, where: str) -> Any:
    """A dataclass from a JSON object; a field without a default must be there."""
    given = expect(dict, value, where)
    values = {}
    for item in fields(record):
        if item.name in given:
            values[item.name] = decode(item.type, given[item.name], f"{where}: {item.name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise LightenError(f"{where} has no field '{item.name}'")
    return record(**values)


def expect(kind: type, value: Any, where: str) -> Any:
    """The value itself, if it is exactly of this type."""
    if type(value) is not kind:
        raise LightenError(f"{where} must be of type {kind.__name__}, not {type(value).__name__}")
    return value
