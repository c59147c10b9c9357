"""A checkpoint comes back as it was, a damaged one is named, and a failing save leaves the old one."""

import errno
from pathlib import Path

import pytest
import torch

from lighten.errors import LightenError
from lighten.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def checkpoint(value: float = 1.0) -> Checkpoint:
    state = {"0.weight": torch.full((3, 4), value), "1.num_batches_tracked": torch.tensor(7)}
    momentum = {"state": {0: {"momentum_buffer": torch.full((3, 4), -value)}}, "param_groups": [{"lr": 0.1}]}
    return Checkpoint(state, dict(state), momentum, {"epoch": 2, "history": [{"loss": 0.5}]})


def test_what_is_saved_is_loaded(tmp_path: Path):
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded.model["0.weight"], torch.ones(3, 4)) and loaded.best.keys() == loaded.model.keys()
    assert torch.equal(loaded.optimizer["state"][0]["momentum_buffer"], -torch.ones(3, 4))
    assert loaded.progress == checkpoint().progress
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("kept", [0, 1, 20, 300, -30])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int):
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LightenError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == f"cannot resume from '{path}': it is missing or damaged"


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(200)])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(LightenError, match="it is missing or damaged"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("document", [{"model": {}}, [1, 2], {"other": 1}])
def test_a_document_of_another_kind_is_named(tmp_path: Path, document: object):
    torch.save(document, tmp_path / "c.pt")
    with pytest.raises(LightenError, match="it is missing or damaged"):
        load_checkpoint(tmp_path / "c.pt")


def test_pickled_code_is_not_run(tmp_path: Path):
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "c.pt")
    with pytest.raises(LightenError, match="it is missing or damaged"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(LightenError, match="cannot resume from '.*c.pt': it is missing or damaged"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_failing_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint(1.0))

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LightenError) as caught:
        save_checkpoint(path, checkpoint(2.0))
    assert str(caught.value) == f"cannot write '{path}': No space left on device; what stood there is intact"
    assert torch.equal(load_checkpoint(path).model["0.weight"], torch.ones(3, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
