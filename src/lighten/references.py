"""What models and data are called on the command line: `NAME`, `NAME:key=value,…`, `package.module:callable`."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from lighten.errors import LightenError

Option = int | float | bool | str
Options = dict[str, Option]


def split_options(text: str) -> tuple[str, Options]:
    """`name:key=value,…` as the name and its options; values are read as bool, int, float or else text.

    Raises LightenError where a part after the first `key=` isn't of that form.
    """
    head, _, tail = text.rpartition(":")
    if not head or not re.match(r"[A-Za-z_]\w*=", tail):
        return text, {}
    options: Options = {}
    for part in tail.split(","):
        key, equals, value = part.partition("=")
        if not (key.strip().isidentifier() and equals and value.strip()):
            raise LightenError(f"in '{text}', '{part}' is not an option of the form key=value")
        options[key.strip()] = read_value(value.strip())
    return head, options


def join_options(name: str, options: Mapping[str, Option]) -> str:
    """The text that `split_options` reads back, options in alphabetical order."""
    parts = (f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in sorted(options.items()))
    return f"{name}:{','.join(parts)}" if options else name


def read_value(text: str) -> Option:
    """A bool, int or float where the text is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def check_options(
    name: str, function: Callable[..., Any], options: Mapping[str, Option], without: tuple[str, ...] = ()
) -> None:
    """Raise LightenError for an option that `function` doesn't take, or of another type than its default.

    without: parameters that aren't the user's to set.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    allowed = [n for n in named if n not in without]
    for key, value in options.items():
        if key not in allowed and not open_ended:
            known = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise LightenError(f"'{name}' has no option '{key}'; {known}")
        kind = kind_of(named[key]) if key in named else None
        if kind in (bool, int, float) and not fits(value, kind):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise LightenError(f"the option '{key}' of '{name}' must be {wanted}, not '{value}'")


def kind_of(parameter: inspect.Parameter) -> type | None:
    """The type of a parameter's default, or the one that its annotation names beside None."""
    if parameter.default is not None:
        return type(parameter.default)
    return next(iter(get_args(parameter.annotation)), None)


def fits(value: Option, kind: type) -> bool:
    """Whether a value may stand where the default is of this type; a whole number may stand for a float."""
    return type(value) is kind or (kind is float and type(value) is int)


def load_callable(text: str, role: str) -> Callable[..., Any]:
    """The object that `package.module:callable` names; modules in the current folder are found too.

    role: what the user asked for, as in "model" or "data". Raises LightenError where it can't be imported.
    """
    module_name, _, attribute = text.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise LightenError(f"the {role} '{text}' is not of the form package.module:callable")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        own = missing is not None and f"{module_name}.".startswith(f"{missing}.")
        reason = f"there is no module '{missing}'" if own else f"importing it fails: {first_line(error)}"
        raise LightenError(f"cannot load the {role} '{text}': {reason}") from error
    if not hasattr(module, attribute):
        hint = nearest(attribute, vars(module))
        raise LightenError(f"cannot load the {role} '{text}': '{module_name}' has no '{attribute}'{hint}")
    found: Callable[..., Any] = getattr(module, attribute)
    if not callable(found):
        raise LightenError(f"cannot load the {role} '{text}': it is of type {type(found).__name__}, not callable")
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that offers the known names most like this one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
