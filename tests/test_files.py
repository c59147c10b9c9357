"""Files appear whole or not at all."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lighten.errors import LightenError
from lighten.files import write_atomically, write_with


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow beyond 1000 bytes, as on a full disk; kept short, since pytest may write to a file itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_text_is_written_in_utf8_and_folders_are_made(tmp_path: Path):
    write_atomically(tmp_path / "a" / "b" / "t.json", "∂ö\n")
    assert (tmp_path / "a" / "b" / "t.json").read_bytes() == "∂ö\n".encode()
    write_atomically(tmp_path / "a" / "b" / "t.json", "new")
    assert (tmp_path / "a" / "b" / "t.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["t.json"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "t"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == path.parent

    write_with(path, write)
    assert path.read_text() == "new"


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "t"
    path.write_text("old")
    with pytest.raises(LightenError) as caught, little_room():
        write_with(path, lambda temporary: temporary.write_bytes(bytes(5000)))
    assert str(caught.value) == f"cannot write '{path}': File too large; what stood there is intact"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_another_error_passes_and_leaves_nothing_behind(tmp_path: Path, error: BaseException):
    path = tmp_path / "t"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_with(path, write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LightenError, match=f"cannot write '{tmp_path}/file/t': "):
        write_atomically(tmp_path / "file" / "t", "text")
    assert (tmp_path / "file").read_text() == "x"


def test_an_error_without_words(tmp_path: Path):
    def write(temporary: Path) -> None:
        raise OSError("gone")

    with pytest.raises(LightenError, match="cannot write '.*t': gone; what stood there is intact"):
        write_with(tmp_path / "t", write)


def test_a_rename_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("lighten.files.os.replace", refuse)
    (tmp_path / "t").write_text("old")
    with pytest.raises(LightenError, match="Permission denied"):
        write_atomically(tmp_path / "t", "new")
    assert (tmp_path / "t").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
