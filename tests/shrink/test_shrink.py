"""The main job from end to end on a small network, with a clock that counts MACs."""

import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from lighten import LightenError, Recipe, Settings, evaluate, load, shrink
from lighten.folder import CHECKPOINT, ONNX, PLAN, PLANNED, REPORT, RESULTS, WEIGHTS, partial_folder
from lighten.network.trace import trace
from lighten.plan.plan import Choice, Plan, load_plan
from lighten.planning import plan_network
from lighten.progress import silent
from lighten.recover import distil as distil_module
from lighten.report.results import read_results

module = import_module("lighten.shrink")  # the name in the package is the function
NONE = Recipe(epochs=0)
SHORT = Recipe(epochs=2, learning_rate=0.02, precision="32-true", checkpoint_minutes=-1.0)


class Counted:
    """A loader that remembers in which stage each of its passes began."""

    def __init__(self, batches, stage_of: list[str]):
        self.batches, self.stage_of, self.passes = batches, stage_of, []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        self.passes.append(self.stage_of[-1])
        return iter(self.batches)


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_half_the_macs_without_a_gradient_step(done, trained, trained_once, small_data, tmp_path):
    results, example = done.results, torch.zeros(1, 1, 8, 8)
    assert trace(done.model, example).cost.macs <= 0.5 * trace(trained, example).cost.macs
    assert (results.before.macs, results.after.macs) == tuple(
        trace(m, example).cost.macs for m in (trained, done.model)
    )
    assert results.before.accuracy == evaluate(trained, small_data.test).value
    assert results.after.accuracy == evaluate(done.model, small_data.test).value > results.before.accuracy - 5
    assert results.after.accuracy_untrained == results.after.accuracy
    assert results.after.held_out_accuracy == evaluate(done.model, small_data.held_out).value
    assert results.recovery == () and results.num_test_samples == 300
    assert results.repair.after <= results.repair.before
    assert results.parity.agrees and results.parity.max_relative_error < 1e-4


def test_the_folder_holds_five_files_and_rebuilds_the_network(done, trained, tmp_path):
    assert {p.name for p in (tmp_path / "net").iterdir()} == {PLAN, WEIGHTS, ONNX, RESULTS, REPORT}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    x = torch.randn(4, 1, 8, 8)
    loaded = load(tmp_path / "net", trained)
    assert equal_states(loaded, done.model)
    torch.testing.assert_close(loaded(x), done.model(x))
    assert load_plan(tmp_path / "net" / PLAN) == done.plan and done.plan.choices
    assert read_results(tmp_path / "net" / RESULTS) == done.results


def test_results_keep_the_contract(done, tmp_path):
    document = json.loads((tmp_path / "net" / RESULTS).read_text())
    assert {"out", "budget", "before", "after", "choices", "refused", "seconds"} <= set(document)
    assert (document["out"], document["budget"], document["weights"]) == ("net", ["macs<=0.5x"], "w.pt")
    for totals in (document["before"], document["after"]):
        assert {"params", "macs", "latency_ms", "accuracy", "accuracy_untrained"} <= set(totals)
        assert totals["latency_ms"] == pytest.approx(totals["macs"] / 1e5)
    sites = {"site", "rewrite", "options", "predicted_loss", "macs", "latency_ms"}
    assert [choice["site"] for choice in document["choices"]] == ["0", "3", "7", "11"]
    assert all(sites <= set(choice) and choice["latency_ms"] > 0 for choice in document["choices"])
    assert {"site", "rewrite", "reason"} == set(document["refused"][0])
    reason = "it has one input channel: every output map would be a multiple of one filtered image"
    assert {"site": "0", "rewrite": "depthwise", "reason": reason} in document["refused"]
    stages = {"trace", "moments", "variants", "solve", "repair", "export", "verify"}
    assert stages <= set(document["seconds"]) and all(s >= 0 for s in document["seconds"].values())


def test_results_tell_nothing_of_the_machines_folders(done, tmp_path):
    for name in (PLAN, RESULTS, REPORT):
        text = (tmp_path / "net" / name).read_text()
        assert str(tmp_path) not in text and str(Path.home()) + "/" not in text and "site-packages" not in text


def test_the_original_is_unchanged(trained, trained_once, small_data, tmp_path):
    trained.train()
    trained[0].requires_grad_(False)
    shrink(trained, small_data, "macs<=0.6x", out=tmp_path / "net", recipe=replace(SHORT, epochs=1))
    assert equal_states(trained, trained_once) and type(trained[3]) is nn.Conv2d
    assert all(m.training for m in trained.modules())
    assert trained[3].weight.requires_grad and not trained[0].weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trained.modules())


def test_a_frozen_network_can_be_lightened(trained, small_data, tmp_path):
    trained.requires_grad_(False)
    done = shrink(trained, small_data, "macs<=0.6x", out=tmp_path / "net", recipe=NONE)
    assert done.results.after.macs <= 0.6 * done.results.before.macs


def test_recovery_wins_accuracy_back(trained, small_data, tmp_path):
    told = []
    done = shrink(
        *(trained, small_data, "macs<=0.15x"),
        out=tmp_path / "net",
        recipe=replace(SHORT, epochs=4),
        show=lambda *what: told.append(what),
    )
    results = done.results
    assert results.after.accuracy_untrained < results.before.accuracy
    assert results.after.held_out_accuracy >= max(epoch.held_out_accuracy for epoch in results.recovery)
    assert results.after.accuracy > results.after.accuracy_untrained
    assert len(results.recovery) == 4 and results.recovery[-1].loss < results.recovery[0].loss
    words = [words for stage, _, words in told if stage == "recover" and words]
    assert words[0].startswith("epoch 1/4 · loss ") and words[-1].endswith(" min left")
    assert all(0 <= share <= 1 for _, share, _ in told)


def test_a_latency_budget_is_held_by_the_clock_of_the_whole(trained, small_data, tmp_path):
    results = shrink(trained, small_data, "latency<=0.5x", out=tmp_path / "net", recipe=NONE).results
    assert results.after.latency_ms <= 0.5 * results.before.latency_ms
    first = results.solves[0]
    assert first.measured_ms > first.bound >= first.predicted_ms, "the layers' clock was to be too optimistic"
    assert len(results.solves) > 1 and "latency" in results.seconds


def test_two_budgets_hold_together(trained, small_data, tmp_path):
    budget = ["latency<=0.6x", "params<=3000"]
    done = shrink(trained, small_data, budget, out=tmp_path / "net", recipe=NONE)
    assert done.results.after.latency_ms <= 0.6 * done.results.before.latency_ms
    assert done.results.after.params == parameters_of(done.model) <= 3000 < parameters_of(trained)
    assert done.results.budget == tuple(budget)


def test_a_drop_budget_finds_a_faster_network(trained, small_data, tmp_path):
    results = shrink(trained, small_data, "drop<=3", out=tmp_path / "net", recipe=SHORT).results
    assert results.after.latency_ms < 0.7 * results.before.latency_ms
    drop = results.before.held_out_accuracy - results.after.held_out_accuracy
    assert drop <= 3 or "drop<=3 is missed" in results.notes[-1]
    assert results.budget == ("drop<=3",)


def test_all_parameters_learn_after_the_search_of_a_drop_budget(trained, small_data, tmp_path, monkeypatch):
    frozen = []

    def recorded(lighter: nn.Module, *args, **options):
        frozen.extend(name for name, parameter in lighter.named_parameters() if not parameter.requires_grad)
        return distil_module.distil(lighter, *args, **options)

    monkeypatch.setattr(module, "distil", recorded)
    shrink(trained, small_data, "drop<=5", out=tmp_path / "net", recipe=replace(SHORT, epochs=1))
    assert frozen == []


def test_the_test_set_is_looked_at_in_the_last_stage_only(trained, small_data, tmp_path):
    stage_of = [""]
    test, held_out = Counted(small_data.test, stage_of), Counted(small_data.held_out, stage_of)
    data = replace(small_data, test=test, held_out=held_out)
    show = lambda stage, share, words: stage_of.append(stage)  # noqa: E731
    shrink(trained, data, ["macs<=0.5x", "drop<=30"], out=tmp_path / "net", recipe=replace(SHORT, epochs=1), show=show)
    assert set(test.passes) == {"verify"}
    assert {"repair", "recover", "verify"} <= set(held_out.passes)


def test_without_a_test_set_the_held_out_one_serves(trained, small_data, tmp_path):
    data = replace(small_data, test=None)
    results = shrink(trained, data, "macs<=0.5x", out=tmp_path / "net", recipe=NONE).results
    assert results.after.accuracy == results.after.held_out_accuracy


def interrupt(stage: str, share: float, words: str) -> None:
    if stage == "recover" and share > 0.7:
        raise KeyboardInterrupt


def refuse(*args: object) -> None:
    raise AssertionError("it was planned again")


def test_a_broken_job_goes_on_without_planning_again(trained, small_data, tmp_path, monkeypatch):
    whole = shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "whole", recipe=SHORT)
    with pytest.raises(KeyboardInterrupt):
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT, show=interrupt)
    partial = partial_folder(tmp_path / "net")
    assert not (tmp_path / "net").exists()
    assert {p.name for p in partial.iterdir()} == {PLAN, PLANNED, CHECKPOINT}
    with pytest.raises(LightenError, match="holds an unfinished job: go on with --resume, or drop it with --force"):
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT)
    monkeypatch.setattr(module, "prepare", refuse)
    told = []
    again = shrink(
        *(trained, small_data, "macs<=0.3x"),
        out=tmp_path / "net",
        recipe=SHORT,
        resume=True,
        show=lambda *what: told.append(what),
    )
    assert again.plan == whole.plan and len(again.results.recovery) == SHORT.epochs
    assert min(share for stage, share, words in told if stage == "recover" and words) > 0.6
    assert {"moments", "solve", "recover", "verify"} <= set(again.results.seconds)
    assert {p.name for p in (tmp_path / "net").iterdir()} == {PLAN, WEIGHTS, ONNX, RESULTS, REPORT}
    assert not partial.exists()


@pytest.fixture
def broken(trained, small_data, tmp_path) -> Path:
    """The folder of a job that was broken off during recovery."""
    with pytest.raises(KeyboardInterrupt):
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT, show=interrupt)
    return partial_folder(tmp_path / "net")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_damaged_start_is_named(broken, trained, small_data, tmp_path, content: bytes):
    (broken / PLANNED).write_bytes(content)
    with pytest.raises(LightenError) as caught:
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT, resume=True)
    assert str(caught.value) == (f"cannot resume from '{broken / PLANNED}': it is damaged; start again with --force")


@pytest.mark.parametrize("part", ["layer", "weight"])
def test_a_job_of_another_network_is_not_resumed(broken, trained, small_data, tmp_path, part):
    if part == "layer":
        trained[11] = nn.Linear(256, 12)
    else:
        trained[3].weight.data[0, 0, 0, 0] += 1e-3
    with pytest.raises(LightenError) as caught:
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT, resume=True)
    assert str(caught.value) == (
        f"the job in '{broken}' is of another network, or of other weights: start anew with --force"
    )


@pytest.mark.parametrize(
    ("choices", "same"),
    [
        ((Choice("3", "low-rank", {"rank": 4}),), True),
        ((Choice("3", "low-rank", {}),), True),  # the clock may choose what a plan leaves open
        ((Choice("3", "low-rank", {"rank": 5}),), False),
        ((Choice("3", "tucker", {"rank": 4}),), False),
        ((Choice("7", "low-rank", {"rank": 4}),), False),
        ((), False),
    ],
)
def test_a_plan_is_followed(choices, same):
    made = Plan("net", (1, 8, 8), (Choice("3", "low-rank", {"rank": 4}),))
    assert module.follows(made, Plan(None, (1, 8, 8), choices)) is same


def test_force_keeps_the_old_folder_until_the_new_one_is_done(done, trained, small_data, tmp_path):
    old = (tmp_path / "net" / RESULTS).read_text()
    with pytest.raises(LightenError, match="net' exists: choose another --out, or replace it with --force"):
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT)
    with pytest.raises(KeyboardInterrupt):
        shrink(trained, small_data, "macs<=0.3x", out=tmp_path / "net", recipe=SHORT, force=True, show=interrupt)
    assert (tmp_path / "net" / RESULTS).read_text() == old
    new = shrink(trained, small_data, "macs<=0.4x", out=tmp_path / "net", recipe=NONE, force=True)
    assert read_results(tmp_path / "net" / RESULTS) == new.results and new.results.budget == ("macs<=0.4x",)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_nan_in_training_keeps_the_checkpoint(trained, small_data, tmp_path):
    batches = [(x.clone(), y) for x, y in small_data.train]
    batches[5][0][0] = math.nan
    with pytest.raises(LightenError, match="the loss is no longer finite in epoch 1, first seen in the layer '0"):
        shrink(trained, replace(small_data, train=batches), "macs<=0.3x", out=tmp_path / "net", recipe=SHORT)
    assert (partial_folder(tmp_path / "net") / CHECKPOINT).exists() and not (tmp_path / "net").exists()


def test_kept_layers_and_methods_are_obeyed(trained, small_data, tmp_path):
    settings = Settings(methods=("spatial",), keep=("7",))
    done = shrink(trained, small_data, "macs<=0.8x", out=tmp_path / "net", settings=settings, recipe=NONE)
    assert {choice.site for choice in done.plan.choices} <= {"0", "3"} and done.plan.choices
    assert {choice.rewrite for choice in done.plan.choices} == {"spatial"}
    refused = {(r.site, r.rewrite): r.reason for r in done.results.refused}
    assert refused["7", "*"] == "kept by request"


def test_the_same_seed_gives_the_same_network(trained, small_data, tmp_path):
    nets = []
    for name in ("one", "two"):
        torch.manual_seed(len(name) + len(nets))
        nets.append(shrink(trained, small_data, "macs<=0.4x", out=tmp_path / name, recipe=NONE))
    assert nets[0].plan == nets[1].plan and equal_states(nets[0].model, nets[1].model)


def test_a_plan_alone_is_the_plan_of_the_job(done, trained, small_data):
    trained.train()
    plan, results = plan_network(trained, small_data, "macs<=0.5x", None, Settings(), silent)
    assert plan == done.plan and results.after.macs == done.results.after.macs
    assert results.after.accuracy is None and trained.training
    with pytest.raises(LightenError) as caught:
        plan_network(trained, small_data, "drop<=1", None, Settings(), silent)
    assert str(caught.value) == ("a drop of accuracy can only be bounded where recovery runs: use `lighten shrink`")


def test_a_plan_edited_by_hand_is_followed(trained, small_data, tmp_path):
    plan = Plan(None, (1, 8, 8), (Choice("3", "tucker", {"rank_in": 6, "rank_out": 5}),))
    made = shrink(trained, small_data, plan=plan, out=tmp_path / "net", recipe=NONE)
    assert made.plan.choices == (Choice("3", "tucker", {"rank_in": 6, "rank_out": 5, "form": "plain"}),)
    assert made.results.budget == () and isinstance(made.model[3], nn.Sequential)
    assert read_results(tmp_path / "net" / RESULTS).choices[0].rewrite == "tucker"
