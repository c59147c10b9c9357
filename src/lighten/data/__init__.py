"""The data that jobs run on, and how a name, a path or a user's own callable become `Data`."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lighten.data.batches import Batches, Data, Loader
from lighten.data.cifar10 import load_cifar10
from lighten.data.digits import load_digits
from lighten.data.image_folder import load_image_folder
from lighten.data.lines import load_lines
from lighten.data.split import as_data
from lighten.errors import LightenError
from lighten.references import (
    Option,
    check_options,
    first_line,
    join_options,
    load_callable,
    nearest,
    split_options,
)

__all__ = ["SOURCES", "Batches", "Data", "Loader", "as_data", "load_data"]

SOURCES: dict[str, Callable[..., Data]] = {
    "cifar10": load_cifar10,
    "digits": load_digits,
    "images": load_image_folder,
    "lines": load_lines,
}


def load_data(text: str, **options: Option) -> Data:
    """What `digits`, `cifar10:PATH`, `images:PATH`, `lines:PATH` or `package.module:callable` means.

    Options follow as `:key=value,…`; `options` override them. A callable gives what `as_data` accepts. Data.name is the
    text that gives the data back. Raises LightenError for unknown names and options, missing paths and what can't be
    imported.
    """
    name, chosen = split_options(text)
    chosen |= options
    source, _, path = name.partition(":")
    if source in SOURCES:
        data = load_source(source, path, chosen)
    elif path:
        function = load_callable(name, "data")
        check_options(name, function, chosen)
        try:
            found = function(**chosen)
        except LightenError:
            raise
        except Exception as error:
            raise LightenError(f"the data '{name}' fail to load: {first_line(error)}") from error
        data = as_data(found)
    else:
        hint = nearest(source, SOURCES) or f"; known are {', '.join(SOURCES)}, and package.module:callable"
        raise LightenError(f"there are no data '{source}'{hint}")
    return replace(data, name=join_options(name, chosen))


def load_source(name: str, path: str, options: dict[str, Option]) -> Data:
    """Data of a known source; raises LightenError for a path too many, or one that is missing."""
    load = SOURCES[name]
    takes_path = "path" in inspect.signature(load).parameters
    if path and not takes_path:
        raise LightenError(f"'{name}' takes no path, but '{path}' was given")
    if takes_path and not path:
        raise LightenError(f"'{name}' needs a path: {name}:PATH")
    check_options(name, load, options, without=("path",))
    if path and not Path(path).exists():
        raise LightenError(f"there is no '{path}', which '{name}:{path}' should be read from")
    return load(path, **options) if takes_path else load(**options)
