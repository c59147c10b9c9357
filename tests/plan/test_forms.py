"""The clock chooses the form of each variant; a fake clock shows that it is obeyed."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.network.cost import Cost
from lighten.network.trace import Site, trace
from lighten.plan.forms import build_on_meta, forms_of, time_variants
from lighten.plan.variants import Variant


class FakeTable:
    """Times by what a module holds, and a list of what it was asked to time."""

    def __init__(self, times_ms: dict[type, float]):
        self.times_ms = times_ms
        self.asked: list[tuple[nn.Module, tuple[int, ...]]] = []

    def measure(self, layers: Sequence[tuple], progress: Callable | None = None) -> list[float]:
        self.asked += layers
        if progress:
            progress(len(layers), len(layers))
        return [self.time(module) for module, _ in layers]

    def time(self, module: nn.Module) -> float:
        return next((t for kind, t in self.times_ms.items() if any(type(m) is kind for m in module.modules())), 9.0)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))


@pytest.fixture
def sites(model) -> dict[str, Site]:
    return {site.name: site for site in trace(model, torch.randn(1, 4, 9, 7)).sites}


def depthwise(site: str, rank: int) -> Variant:
    return Variant(site, "depthwise", {"rank": rank}, 0.5, Cost(1, 2))


FORM_OF = {Sum: "parallel", Concat: "concat", Repeat: "repeat"}


@pytest.mark.parametrize("fastest", FORM_OF)
def test_the_faster_form_wins(model, sites, fastest):
    table = FakeTable(dict.fromkeys(FORM_OF, 3.0) | {fastest: 1.0})
    (timed,) = time_variants(model, sites, [depthwise("0", 2)], table)
    assert timed.options == {"rank": 2, "form": FORM_OF[fastest]} and timed.latency_ms == 1.0
    assert (timed.site, timed.rewrite, timed.predicted_loss, timed.cost) == ("0", "depthwise", 0.5, Cost(1, 2))


def test_of_equal_times_the_simplest_form_wins(model, sites):
    (timed,) = time_variants(model, sites, [depthwise("0", 2)], FakeTable({}))
    assert timed.options["form"] == "parallel" and timed.latency_ms == 9.0


def test_order_and_number_of_variants_stay(model, sites):
    originals = [Variant(name, None, {}, 0.0, sites[name].cost) for name in ("0", "2")]
    variants = [originals[0], depthwise("0", 1), depthwise("0", 3), originals[1], depthwise("2", 2)]
    timed = time_variants(model, sites, variants, FakeTable({Sum: 20.0, Concat: 4.0}))
    assert [(v.site, v.options) for v in timed] == [
        ("0", {}),
        ("0", {"rank": 1, "form": "plain"}),
        ("0", {"rank": 3, "form": "concat"}),
        ("2", {}),
        ("2", {"rank": 2, "form": "multiplier"}),
    ]
    assert [v.latency_ms for v in timed] == [9.0, 9.0, 4.0, 9.0, 9.0]


def test_layers_are_timed_at_the_shape_of_their_site_without_weights(model, sites):
    table, told = FakeTable({}), []
    time_variants(model, sites, [depthwise("2", 2)], table, lambda done, total: told.append((done, total)))
    assert [shape for _, shape in table.asked] == [(8, 9, 7)] * 2 and told == [(2, 2)]
    assert all(p.is_meta for module, _ in table.asked for p in module.parameters())
    assert not any(p.is_meta for p in model.parameters())


def test_each_variant_in_each_of_its_forms(model):
    original = Variant("0", None, {}, 0.0, Cost())
    assert forms_of(model, original) == [original]
    assert [v.options["form"] for v in forms_of(model, depthwise("0", 2))] == [
        "parallel",
        "multiplier",
        "concat",
        "repeat",
    ]
    assert [v.options["form"] for v in forms_of(model, depthwise("2", 2))] == ["parallel", "multiplier"]


def test_the_site_as_it_is_is_timed_as_it_is(model):
    built = build_on_meta(model, Variant("2", None, {}, 0.0, Cost()))
    assert repr(built) == repr(model[2]) and built.weight.is_meta and not model[2].weight.is_meta
