"""Lightened networks on disk: rebuilt in every way, refused when damaged, and never mixed with what stood there."""

import errno
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.folder import CHECKPOINT, PLAN, PLANNED, WEIGHTS, load, open_partial, partial_folder, publish, save_network
from lighten.models import build_model
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan

CHOICES = (Choice("3", "low-rank", {"rank": 4}), Choice("7", "depthwise", {"rank": 2, "form": "parallel"}))
INPUT = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lighter(trained: nn.Module) -> nn.Module:
    return apply_plan(trained, Plan(None, (1, 8, 8), CHOICES)).eval()


@pytest.fixture
def folder(tmp_path: Path, lighter: nn.Module) -> Path:
    """A lightened network's folder; its network has no name."""
    (tmp_path / "net").mkdir()
    save_network(tmp_path / "net", lighter, Plan(None, (1, 8, 8), CHOICES))
    return tmp_path / "net"


def reset(model: nn.Module) -> nn.Module:
    """The same structure with other weights."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.train()


def test_loaded_by_instance_and_by_constructor(folder, lighter, trained):
    expected = lighter(INPUT)
    for loaded in (load(folder, reset(trained)), load(str(folder), lambda: reset(trained))):
        assert torch.equal(loaded(INPUT), expected)
        assert not any(module.training for module in loaded.modules())
    assert type(trained[3]) is nn.Conv2d


def test_loaded_by_the_built_in_name(tmp_path):
    plan = Plan("digits_vgg:width=16", (1, 16, 16), (Choice("features.3", "low-rank", {"rank": 4}),))
    lighter = apply_plan(build_model("digits_vgg:width=16"), plan).eval()
    save_network(tmp_path, lighter, plan)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(load(tmp_path)(x), lighter(x))


def test_loaded_by_an_importable_callable(tmp_path, lighter, trained, monkeypatch):
    own = types.ModuleType("own_networks")
    own.make = lambda: reset(trained)
    monkeypatch.setitem(sys.modules, "own_networks", own)
    save_network(tmp_path, lighter, Plan("own_networks:make", (1, 8, 8), CHOICES))
    assert torch.equal(load(tmp_path)(INPUT), lighter(INPUT))


def test_a_network_without_a_name_must_be_given(folder):
    with pytest.raises(LightenError) as caught:
        load(folder)
    assert (
        str(caught.value) == f"'{folder}' doesn't name its network: give its constructor, lighten.load(folder, model)"
    )


def test_no_folder(tmp_path, trained):
    with pytest.raises(LightenError, match=f"no plan at '{tmp_path}/none/plan.json'"):
        load(tmp_path / "none", trained)


def test_weights_that_two_layers_share_are_kept(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[2].weight = model[1].weight
    plan = Plan(None, (1, 8, 8), (Choice("0", "low-rank", {"rank": 2}),))
    lighter = apply_plan(model, plan)
    save_network(tmp_path, lighter, plan)
    loaded = load(tmp_path, reset(model))
    assert torch.equal(loaded(INPUT), lighter(INPUT)) and loaded[2].weight is loaded[1].weight


def test_weights_in_another_memory_format_are_kept(tmp_path, lighter, trained):
    expected = lighter(INPUT)
    save_network(tmp_path, lighter.to(memory_format=torch.channels_last), Plan(None, (1, 8, 8), CHOICES))
    torch.testing.assert_close(load(tmp_path, trained)(INPUT), expected)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights(folder, trained, kept):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LightenError, match=f"cannot read the weights '{path}', the file is damaged: "):
        load(folder, trained)


def test_missing_weights(folder, trained):
    (folder / WEIGHTS).unlink()
    with pytest.raises(LightenError, match="there is no weights file '.*weights.safetensors'"):
        load(folder, trained)


def test_weights_of_another_plan(folder, trained):
    plan = Plan(None, (1, 8, 8), (Choice("3", "low-rank", {"rank": 5}), CHOICES[1]))
    plan.save(folder / PLAN)
    with pytest.raises(LightenError, match=r"are not this model's: 2 of another shape \(3.0.weight \(4, 12, 3, 3\)"):
        load(folder, trained)


def test_a_plan_of_another_network(folder):
    with pytest.raises(LightenError) as caught:
        load(folder, build_model("resnet20"))
    assert str(caught.value) == (
        "the plan is for another network: choices[0] ('3') names a layer that this one doesn't have"
    )


def test_a_full_disk_leaves_the_old_weights(folder, lighter, trained, monkeypatch):
    before, expected = (folder / WEIGHTS).read_bytes(), lighter(INPUT)

    def full(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LightenError) as caught:
        save_network(folder, reset(lighter), Plan(None, (1, 8, 8), CHOICES))
    path = folder / WEIGHTS
    assert str(caught.value) == f"cannot write '{path}': No space left on device; what stood there is intact"
    assert path.read_bytes() == before and {p.name for p in folder.iterdir()} == {PLAN, WEIGHTS}
    assert torch.equal(load(folder, trained)(INPUT), expected)


def test_an_existing_folder_is_refused(folder):
    with pytest.raises(LightenError) as caught:
        open_partial(folder, force=False, resume=False)
    assert str(caught.value) == f"'{folder}' exists: choose another --out, or replace it with --force"
    assert not partial_folder(folder).exists()


def test_force_replaces_only_lightened_networks(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to mother.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("letters", "file"):
        out = tmp_path / name
        with pytest.raises(LightenError) as caught:
            open_partial(out, force=True, resume=False)
        assert str(caught.value) == f"'{out}' isn't a lightened network's folder: --force doesn't replace it"
    assert (tmp_path / "letters" / "to mother.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    assert open_partial(tmp_path / "empty", force=True, resume=False).is_dir()


def test_force_replaces_only_at_the_end(folder):
    old = (folder / PLAN).read_text()
    partial = open_partial(folder, force=True, resume=False)
    (partial / PLAN).write_text("new")
    (partial / CHECKPOINT).write_text("c")
    (partial / PLANNED).write_text("p")
    assert (folder / PLAN).read_text() == old and partial == folder.with_name("net.partial")
    publish(folder)
    assert [path.name for path in folder.iterdir()] == [PLAN] and (folder / PLAN).read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_an_unfinished_job_is_not_dropped_in_silence(tmp_path):
    out = tmp_path / "net"
    partial = open_partial(out, force=False, resume=False)
    assert open_partial(out, force=False, resume=False) == partial, "nothing was done there yet"
    (partial / PLANNED).write_text("work of hours")
    with pytest.raises(LightenError) as caught:
        open_partial(out, force=False, resume=False)
    assert str(caught.value) == (f"'{partial}' holds an unfinished job: go on with --resume, or drop it with --force")
    assert open_partial(out, force=False, resume=True) == partial and (partial / PLANNED).exists()
    assert open_partial(out, force=True, resume=True) == partial and (partial / PLANNED).exists()
    assert open_partial(out, force=True, resume=False) == partial and list(partial.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LightenError, match="cannot make the folder '.*/file/net.partial': "):
        open_partial(tmp_path / "file" / "net", force=False, resume=False)


def test_a_neighbour_with_the_ending_old_is_left_alone(folder):
    neighbour = folder.with_name("fresh.old")
    neighbour.mkdir()
    (neighbour / "thesis.tex").write_text("years")
    out = folder.with_name("fresh")
    open_partial(out, force=False, resume=False)
    publish(out)
    assert (neighbour / "thesis.tex").read_text() == "years" and out.is_dir()


def test_a_rename_that_fails_brings_the_old_folder_back(folder, monkeypatch):
    partial, old, rename = open_partial(folder, force=True, resume=False), (folder / PLAN).read_text(), Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self == partial:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(LightenError) as caught:
        publish(folder)
    assert str(caught.value) == f"cannot write '{folder}': No space left on device; the result is in '{partial}'"
    assert (folder / PLAN).read_text() == old and partial.is_dir()
    assert not folder.with_name("net.old").exists()
