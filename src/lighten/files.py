"""Files are written to a temporary name and renamed, so that a full disk or a break leaves the old ones intact."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lighten.errors import LightenError


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; raises LightenError where that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise LightenError(f"cannot write '{path}': {error.strerror or error}; what stood there is intact") from error
    finally:
        with suppress(OSError):  # also where the folder itself couldn't be made
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
