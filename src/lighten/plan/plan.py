"""The plan: which rewrite each site gets, as a small JSON file that can be read, diffed, edited and replayed."""

import json
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path

import jsonschema
from torch import nn

from lighten.errors import LightenError
from lighten.files import write_atomically
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Options, is_rewritable, shape_of

VERSION = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """One site's rewrite, with the options (ranks, order, form) that rebuild its layers."""

    site: str
    rewrite: str
    options: Options


@dataclass(frozen=True, slots=True)
class Plan:
    """All choices; sites that aren't named stay as they are.

    model: the text that names the network (`resnet20`, `package.module:callable`), where it has one.
    """

    model: str | None
    input_shape: tuple[int, ...]
    choices: tuple[Choice, ...] = field(default=())

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_atomically(path, json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n")


def load_plan(path: Path) -> Plan:
    """Read a plan; raises LightenError that names the entry which breaks the schema."""
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise LightenError(f"no plan at '{path}'") from error
    except (OSError, ValueError) as error:
        raise LightenError(f"the plan '{path}' isn't JSON: {error}") from error
    schema = json.loads(resources.files("lighten.plan").joinpath("schema.json").read_text())
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(content))
    if problem:
        raise LightenError(f"the plan '{path}' is wrong at {problem.json_path}: {problem.message}")
    choices = tuple(Choice(**choice) for choice in content["choices"])
    return Plan(content.get("model"), tuple(content["input_shape"]), choices)


def check_plan(plan: Plan, model: nn.Module) -> None:
    """Raise LightenError, naming the entry, where a choice doesn't fit this network."""
    modules = dict(model.named_modules())
    seen: set[str] = set()
    for index, choice in enumerate(plan.choices):
        entry = f"choices[{index}] ('{choice.site}')"
        layer = modules.get(choice.site)
        if layer is None:
            raise LightenError(f"the plan is for another network: {entry} names a layer that this one doesn't have")
        if choice.site in seen:
            raise LightenError(f"the plan names a site twice: {entry}")
        if not is_rewritable(layer):
            raise LightenError(f"{entry}: a {type(layer).__name__} can't be rewritten")
        shape, rewrite = shape_of(layer), REWRITES[choice.rewrite]
        problem = rewrite.refuse(shape)
        if problem:
            raise LightenError(f"{entry}: {choice.rewrite} refuses it: {problem}")
        try:
            problem = rewrite.check(shape, choice.options)
            if not problem and choice.options.get("form") not in (None, *rewrite.forms(shape, choice.options)):
                problem = (
                    f"unknown form '{choice.options['form']}'; known: {', '.join(rewrite.forms(shape, choice.options))}"
                )
        except (KeyError, TypeError) as error:
            problem = f"options lack {error}" if isinstance(error, KeyError) else "options are of the wrong type"
        if problem:
            raise LightenError(f"{entry}: {problem}")
        seen.add(choice.site)
