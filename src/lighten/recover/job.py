"""What recovery starts from, kept on disk so that a broken job goes on without planning again."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.files import write_with
from lighten.folder import PLAN, PLANNED
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Plan, load_plan
from lighten.report.results import Results, from_json, to_json


@dataclass(frozen=True, slots=True)
class Start:
    """The plan, the weights of the repaired network before any gradient step, and what is known so far.

    original: the fingerprint of the original's weights.
    """

    plan: Plan
    state: dict[str, Tensor]
    results: Results
    original: str

    def rebuild(self, original: nn.Module) -> nn.Module:
        """The lighter network as it is before recovery."""
        lighter = apply_plan(original, self.plan)
        lighter.load_state_dict(self.state)
        return lighter


def save_start(folder: Path, start: Start) -> None:
    """Write plan and state into the working folder."""
    start.plan.save(folder / PLAN)
    state = {name: value.detach().clone() for name, value in start.state.items()}
    document = {"state": state, "results": json.dumps(to_json(start.results)), "original": start.original}
    content = io.BytesIO()
    torch.save(document, content)
    write_with(folder / PLANNED, lambda temporary: temporary.write_bytes(content.getbuffer()))


def load_start(folder: Path) -> Start | None:
    """What an earlier job left, or None where it hadn't come so far; raises LightenError where it is damaged."""
    if not (folder / PLANNED).exists():
        return None
    try:
        document = torch.load(folder / PLANNED, map_location="cpu", weights_only=True)
        results = from_json(json.loads(document["results"]))
        return Start(load_plan(folder / PLAN), document["state"], results, document["original"])
    except LightenError:
        raise
    except Exception as error:  # the reader meets damage with errors of many types
        raise LightenError(
            f"cannot resume from '{folder / PLANNED}': it is damaged; start again with --force"
        ) from error


def fingerprint(model: nn.Module) -> str:
    """The same for the same weights, and else another."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
