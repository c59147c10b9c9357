"""Advice: what rewrites save by formula and by the clock, and which layers to leave alone, with the reason."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import lighten
from lighten.advise import Advice, LayerAdvice, Offer, advise, separable_ratio, threshold
from lighten.errors import LightenError
from lighten.measure import latency_table
from lighten.measure.latency import Timing
from lighten.measure.latency_table import LatencyTable
from lighten.network.cost import Cost


def advised(model: nn.Module, *shape: int, **options) -> dict[str, LayerAdvice]:
    return {layer.name: layer for layer in advise(model, torch.zeros(2, *shape), **options).layers}


def conv(inputs: int = 16, outputs: int = 32, window: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, window, **{"padding": window // 2} | options)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """A clock whose times follow from the order of the calls: the layer 8 ms, replacements 2, frames nothing."""

    def fake(calls: dict, seconds: float) -> dict[str, Timing]:
        frames, (first, *others) = ("once", "twice"), [name for name in calls if name not in ("once", "twice")]
        times = dict.fromkeys(frames, 0.0) | {first: 8.0} | dict.fromkeys(others, 2.0)
        return {name: Timing(times[name], 0, 0, 1) for name in calls}

    monkeypatch.setattr(latency_table, "time_alternating", fake)
    return LatencyTable(tmp_path / "t.json")


@pytest.mark.parametrize("window", range(2, 8))
def test_the_threshold_is_where_the_ratio_is_one(window):
    taps = window**2
    assert separable_ratio(threshold(taps), taps) == pytest.approx(1)
    assert separable_ratio(1, taps) < 1 < separable_ratio(2, taps) < separable_ratio(512, taps) < taps
    assert separable_ratio(1e9, taps) == pytest.approx(taps, rel=1e-6)


def test_a_window_of_one_tap_never_pays():
    assert threshold(1) == math.inf and all(separable_ratio(n, 1) < 1 for n in (1, 2, 64, 10**6))


def test_the_offer_is_what_the_formula_says():
    model = nn.Sequential(conv(16, 32), conv(32, 64, 5, groups=2), conv(64, 1, 2))
    for layer in advised(model, 16, 28, 28).values():
        taps, outputs = {"0": (9, 32), "1": (25, 32), "2": (4, 1)}[layer.name]
        assert layer.num_outputs == outputs and layer.threshold == taps / (taps - 1)
        assert layer.lowest("depthwise").fewer_macs == pytest.approx(separable_ratio(outputs, taps))


def test_the_crnn_of_the_reference_figures():
    layers = advised(lighten.build_model("crnn"), 1, 32, 320)
    dense, separable = layers["features.15"], layers["features.15"].lowest("depthwise")
    assert dense.cost.params == 2_359_808 and dense.shape == "512→512, 3×3 on 4×81"
    assert separable.fewer_params == pytest.approx(2_359_808 / (5_120 - 512 + 262_656))  # the bias of one layer is left
    assert separable.verdict == "pays by formula (8.84×)"
    assert "one input channel" in layers["features.0"].verdict
    assert layers["head.0.rnn"].verdict == "leave alone: no rewrite takes a layer of the kind 'lstm'"
    assert sum(layer.share_of_macs for layer in layers.values()) == pytest.approx(1)


def test_two_ranks_of_each_rewrite_the_second_halves_the_macs():
    (layer,) = advised(conv(64, 64), 64, 14, 14).values()
    for name in ("depthwise", "blueprint", "spatial", "tucker", "low-rank"):
        lowest, half = (offer for offer in layer.offers if offer.rewrite == name)
        assert lowest.is_lowest and not half.is_lowest
        assert lowest.fewer_macs > half.fewer_macs >= 2
    depthwise = [(offer.options["rank"], offer.fewer_macs) for offer in layer.offers if offer.rewrite == "depthwise"]
    assert depthwise == [(1, pytest.approx(576 / 73)), (3, pytest.approx(576 / (3 * 73)))]  # rank 4 would give 1.97×


class Twice(nn.Module):
    """A layer that is called twice, two that share a weight, one that is transposed, and a product of its own."""

    def __init__(self):
        super().__init__()
        self.again, self.first, self.second = conv(16, 16), conv(16, 16), conv(16, 16)
        self.second.weight = self.first.weight
        self.up = nn.ConvTranspose2d(16, 16, 2)

    def forward(self, x):
        x = self.up(self.second(self.first(self.again(self.again(x)))))
        return x @ x.transpose(2, 3)


def test_layers_that_the_network_forbids():
    layers = advised(Twice(), 16, 8, 8)
    assert layers["again"].verdict == "leave alone: it is called 2 times in one forward pass"
    assert layers["first"].verdict == "leave alone: its weight is also used by 'second'"
    assert layers["up"].verdict == "leave alone: it is a transposed convolution, which no rewrite handles"
    assert layers[""].verdict == "leave alone: no rewrite takes a layer of the kind 'matmul'"
    assert not any(layer.offers for layer in layers.values())


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (conv(1, 16), (1, 8, 8), "it has one input channel: every output map would be a multiple of one filtered"),
        (conv(16, 16, 1), (16, 8, 8), "its kernel is 1×1: there is nothing to separate; but channel low-rank pays by"),
        (
            conv(16, 16, groups=16),
            (16, 8, 8),
            "it is depthwise already; but spatially separable pays by formula (1.50×)",
        ),
        (conv(16, 16, 5), (16, 4, 4), "its map of 4×4 is smaller than its window of 5×5"),
        (conv(16, 16, dilation=2, padding=2), (16, 4, 4), "its map of 4×4 is smaller than its window of 3×3"),
        (conv(2, 1, 2, stride=2, padding=0), (2, 8, 8), "no rewrite has fewer MACs"),
        (nn.Linear(16, 2), (16,), "it has too few channels for a lower rank to pay"),
    ],
)
def test_layers_to_leave_alone(layer, shape, reason):
    (found,) = advised(layer, *shape).values()
    assert found.verdict.startswith(f"leave alone: {reason}")


def test_a_small_share_is_not_worth_it_unless_it_has_the_parameters():
    model = nn.Sequential(conv(16, 64), conv(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 8))
    assert advised(model, 16, 56, 56)["4"].verdict.startswith("channel low-rank pays")
    model[1] = nn.Sequential(*(conv(64, 64) for _ in range(4)))
    (*_, head) = advised(model, 16, 56, 56).values()
    assert head.share_of_macs < head.share_of_params < 0.005
    assert head.verdict == "leave alone: it has under 0.5 % of the MACs and of the parameters"


def test_a_map_as_large_as_the_window_along_one_axis_is_not_too_small():
    assert advised(conv(16, 16), 16, 2, 80)[""].reasons == ()


@pytest.mark.parametrize(
    ("macs", "faster", "verdict", "pays"),
    [
        (8.3, None, "pays by formula (8.30×)", True),
        (8.3, 4.1, "pays by formula (8.30×) and by the clock (4.10×)", True),
        (8.3, 1.02, "pays by formula (8.30×), not by the clock (1.02×): leave it", False),
        (0.9, 1.5, "pays by the clock (1.50×), not by formula (0.900×)", True),
        (0.9, 0.5, "doesn't pay by formula (0.900×) or by the clock (0.500×)", False),
        (0.9, None, "doesn't pay by formula (0.900×)", False),
    ],
)
def test_verdicts_in_words(macs, faster, verdict, pays):
    offer = Offer("depthwise", {"rank": 1}, True, macs, macs, faster)
    assert offer.verdict == verdict and offer.pays is pays


def test_the_best_by_the_clock_is_not_the_best_by_formula():
    offers = tuple(
        Offer(name, {}, True, macs, macs, time) for name, macs, time in [("tucker", 8.0, 1.5), ("spatial", 4.0, 3.0)]
    )
    layer = LayerAdvice("a", "conv2d", "", 8, 1.125, Cost(), 1, 1, offers, (), {})
    assert layer.best.rewrite == "spatial"
    untimed = tuple(replace(offer, faster=None) for offer in offers)
    assert replace(layer, offers=untimed).verdict == "Tucker-2 pays by formula (8×)"
    assert layer.verdict == "spatially separable pays by formula (4×) and by the clock (3×)"


def test_times_come_from_the_clock(clock):
    told = []
    advice = advise(
        conv(64, 64),
        torch.zeros(1, 64, 14, 14),
        clock=clock,
        on_progress=lambda done, total: told.append((done, total)),
    )
    (layer,) = advice.layers
    assert layer.latency_ms == 8 and {offer.faster for offer in layer.offers} == {4.0}
    assert layer.lowest("depthwise").options == {"rank": 1, "form": "plain"} and told[-1][0] == told[-1][1]
    assert layer.verdict.endswith("and by the clock (4×)")
    assert advice.clock == "onnxruntime, 1 thread, batch 1" and "(4×)" in advice.to_markdown()


def test_a_time_lost_in_the_noise_is_said_and_not_divided_by(tmp_path, monkeypatch):
    monkeypatch.setattr(
        latency_table, "time_alternating", lambda calls, seconds: {name: Timing(1.0, 1.0, 1.0, 1) for name in calls}
    )
    advice = advise(conv(), torch.zeros(1, 16, 8, 8), clock=LatencyTable(tmp_path / "t.json"))
    assert {offer.faster for offer in advice.layers[0].offers} == {None}
    assert "(?)" in advice.to_markdown() and "by the clock" not in advice.layers[0].verdict


def test_layers_are_timed_for_real(tmp_path):
    clock = LatencyTable(tmp_path / "t.json")
    clock.seconds = 0.0
    layers = advised(nn.Sequential(conv(16, 16), nn.Flatten(), nn.Linear(16 * 64, 8)), 16, 8, 8, clock=clock)
    assert all(layer.latency_ms > 0 and layer.offers for layer in layers.values())


@pytest.fixture(scope="module")
def digits_advice() -> Advice:
    return advise(lighten.build_model("digits_vgg:width=8"), torch.zeros(1, 1, 16, 16), title="digits")


def test_json_holds_all_and_is_plain(digits_advice):
    found = json.loads(json.dumps(digits_advice.as_dict(), allow_nan=False))
    assert (found["model"], found["input"], found["clock"]) == ("digits", [1, 16, 16], None)
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in digits_advice.layers]
    first, second = found["layers"][:2]
    assert first["leave_alone"] and {"rewrite", "reason"} == set(first["refused"][0])
    assert second["threshold"] == 1.125 and "pays by formula" in second["verdict"]
    assert {"rewrite", "options", "is_lowest", "fewer_macs", "fewer_params", "faster", "verdict"} == set(
        second["offers"][0]
    )


def test_tables_show_every_layer(digits_advice):
    markdown = digits_advice.to_markdown().splitlines()
    head, rule, *rows = [line for line in markdown if line.startswith("|")]
    assert len(rows) == len(digits_advice.layers) and head.count("|") == rule.count("|") == rows[0].count("|")
    text = str(digits_advice)
    assert all(layer.name in text for layer in digits_advice.layers) and "Accuracy isn't weighed here" in text
    assert digits_advice.details().row_count == sum(len(layer.offers) for layer in digits_advice.layers)


def test_the_model_stays_as_it_was():
    model = nn.Sequential(conv(), nn.BatchNorm2d(32), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    advise(model, torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not any(p.is_meta for p in model.parameters())


def test_named_and_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(16, 16)

        def forward(self, image, scale):
            return self.conv(image) * scale

    found = advise(Two(), {"image": torch.zeros(1, 16, 8, 8), "scale": torch.ones(1)})
    assert [layer.name for layer in found.layers] == ["conv"] and found.as_dict()["input"] == [[1, 16, 8, 8], [1]]


def test_a_model_that_fails_is_said():
    with pytest.raises(LightenError, match="fails on an input of shape"):
        advise(conv(), torch.zeros(1, 3, 8, 8))
