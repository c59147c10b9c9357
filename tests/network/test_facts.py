"""The reference figures of whole networks and of textbooks, to the last digit, through `lighten.count`."""

import runpy
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

import lighten
from lighten.models.crnn import crnn, crnn_separable
from lighten.models.mobilenet_v1 import mobilenet_v1

LINE, IMAGE = torch.zeros(1, 1, 32, 320), torch.zeros(1, 3, 224, 224)


@pytest.fixture(scope="module")
def dense() -> lighten.CostTable:
    return lighten.count(crnn().features, LINE)


@pytest.fixture(scope="module")
def separable() -> lighten.CostTable:
    return lighten.count(crnn_separable().features, LINE)


@pytest.fixture(scope="module")
def mobilenet() -> lighten.CostTable:
    return lighten.count(mobilenet_v1(), IMAGE)


def layers(table: lighten.CostTable) -> list[tuple[str, tuple[int, ...], int]]:
    """(layer type with its index, output shape, parameters) of the layers that have any."""
    return [(row.title, row.output_shape, row.cost.params) for row in table.rows if row.cost.params]


def test_layer_table_of_the_dense_crnn(dense):
    assert layers(dense) == [
        ("conv2d-1", (64, 32, 320), 640),
        ("conv2d-4", (128, 16, 160), 73_856),
        ("conv2d-7", (256, 8, 80), 295_168),
        ("batchnorm2d-8", (256, 8, 80), 512),
        ("conv2d-10", (256, 8, 80), 590_080),
        ("conv2d-13", (512, 4, 81), 1_180_160),
        ("batchnorm2d-14", (512, 4, 81), 1_024),
        ("conv2d-16", (512, 4, 81), 2_359_808),
        ("conv2d-19", (512, 1, 81), 1_049_088),
        ("batchnorm2d-20", (512, 1, 81), 1_024),
    ]
    assert (dense.total.params, dense.total.macs) == (5_551_360, 1_992_425_472)
    assert [row.kind for row in dense.rows][:3] == ["conv2d", "relu", "maxpool2d"] and len(dense.rows) == 21


def test_layer_table_of_the_separable_crnn(separable):
    assert layers(separable) == [
        ("conv2d-1", (1, 32, 320), 10),
        ("conv2d-2", (64, 32, 320), 128),
        ("conv2d-5", (64, 16, 160), 640),
        ("conv2d-6", (128, 16, 160), 8_320),
        ("conv2d-9", (128, 8, 80), 1_280),
        ("conv2d-10", (256, 8, 80), 33_024),
        ("batchnorm2d-11", (256, 8, 80), 512),
        ("conv2d-13", (256, 8, 80), 2_560),
        ("conv2d-14", (256, 8, 80), 65_792),
        ("conv2d-17", (256, 4, 81), 2_560),
        ("conv2d-18", (512, 4, 81), 131_584),
        ("batchnorm2d-19", (512, 4, 81), 1_024),
        ("conv2d-21", (512, 4, 81), 5_120),
        ("conv2d-22", (512, 4, 81), 262_656),
        ("conv2d-25", (512, 1, 81), 2_560),
        ("conv2d-26", (512, 1, 81), 262_656),
        ("batchnorm2d-27", (512, 1, 81), 1_024),
    ]
    assert (separable.total.params, separable.total.macs) == (781_450, 239_361_024)


def test_layer_table_of_mobilenet_v1(mobilenet):
    """Howard et al. 2017, table 1: inputs, outputs and stride of every separable layer."""
    table = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    table += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    side, expected = 112, [("conv2d", (32, 112, 112), 864), ("batchnorm2d", (32, 112, 112), 64)]
    for given, made, stride in table:
        side //= stride
        expected += [
            ("conv2d", (given, side, side), 9 * given),
            ("batchnorm2d", (given, side, side), 2 * given),
            ("conv2d", (made, side, side), given * made),
            ("batchnorm2d", (made, side, side), 2 * made),
        ]
    expected.append(("linear", (1000,), 1_025_000))
    assert [(title.partition("-")[0], *rest) for title, *rest in layers(mobilenet)] == expected
    assert (mobilenet.total.params, mobilenet.total.macs) == (4_231_976, 568_740_352)
    assert sum(row.cost.macs for row in mobilenet.rows if row.kind == "conv2d") == 567_716_352


def test_memory(dense, separable, mobilenet):
    """Every layer's output twice; of MobileNet V1 only those of layers with weights, as torchinfo estimates."""
    activations = {"dense": dense.total.activation_bytes, "separable": separable.total.activation_bytes}
    assert {name: round(2 * size / 2**20, 2) for name, size in activations.items()} == {
        "dense": 31.68,
        "separable": 37.09,
    }
    assert round(mobilenet.training_bytes / 1e6, 2) == 80.69 and mobilenet.training_bytes == 80_691_008
    assert "80.69 MB (76.95 MiB)" in mobilenet.to_text() and "31.68 MiB" in dense.to_text()


def test_heads_and_whole_crnn(dense, separable):
    head = lighten.count(crnn().head, torch.zeros(1, 81, 512))
    assert (head.total.params, head.total.macs) == (2_779_941, 224_487_936)
    whole = lighten.count(crnn(), LINE)
    assert (whole.total.params, whole.total.macs) == (8_331_301, 2_216_913_408)
    assert whole.total.macs == dense.total.macs + head.total.macs and whole.uncounted == {}
    lighter = lighten.count(crnn_separable(), LINE)
    assert lighter.total.params == separable.total.params + head.total.params


def test_what_separable_layers_save_in_the_crnn(dense, separable):
    """7.1 times in the convolutions, not 9; 2.34 times in all; and activations grow by 17 %."""
    before, after = dense.total, separable.total
    assert round(before.params / after.params, 2) == 7.10 and round(before.macs / after.macs, 2) == 8.32
    assert round(after.activations / before.activations, 2) == 1.17
    before, after = (lighten.count(build(), LINE).total for build in (crnn, crnn_separable))
    assert round(before.params / after.params, 2) == 2.34 and round(before.macs / after.macs, 1) == 4.8


@pytest.mark.parametrize(("alpha", "with_statistics"), [(1.0, 4_253_864), (0.5, 1_342_536)])
def test_keras_counts_running_statistics_too(alpha, with_statistics):
    model = mobilenet_v1(alpha=alpha)
    statistics = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert lighten.count(model, IMAGE).total.params + statistics == with_statistics


def test_english_g2():
    table = lighten.count(lighten.build_model("easyocr_english_g2"), torch.zeros(1, 1, 64, 256))
    recurrent = sum(row.cost.macs for row in table.rows if row.kind == "lstm")
    assert table.total.params == 3_781_345 and table.uncounted == {}
    assert (round((table.total.macs - recurrent) / 1e6, 1), round(recurrent / 1e6, 1)) == (827.3, 132.1)


@pytest.mark.parametrize("size", [128, 160, 192])
def test_resolution_changes_macs_and_activations_but_no_parameters(mobilenet, size):
    smaller = lighten.count(mobilenet_v1(), torch.zeros(1, 3, size, size)).total
    assert smaller.params == mobilenet.total.params
    assert smaller.macs < mobilenet.total.macs and smaller.activations < mobilenet.total.activations


def test_the_last_depthwise_layer_with_stride_2_and_padding_4_costs_the_same():
    right, wrong = (
        lighten.count(nn.Conv2d(1024, 1024, 3, stride, padding, groups=1024), torch.zeros(1, 1024, 7, 7))
        for stride, padding in ((1, 1), (2, 4))
    )
    assert right.total == wrong.total and right.rows[0].output_shape == wrong.rows[0].output_shape == (1024, 7, 7)


@pytest.mark.parametrize("kernel", range(1, 8))
def test_when_separable_layers_pay(kernel):
    """Dense over separable is N·k²/(k² + N): above 1 where N > k²/(k² − 1), and never for k = 1."""
    for num_maps in (1, 2, 3, 64):
        wide = nn.Conv2d(5, num_maps, kernel, bias=False)
        narrow = nn.Sequential(nn.Conv2d(5, 5, kernel, groups=5, bias=False), nn.Conv2d(5, num_maps, 1, bias=False))
        before, after = (lighten.count(model, torch.zeros(1, 5, 9, 9)).total for model in (wide, narrow))
        expected = Fraction(num_maps * kernel**2, kernel**2 + num_maps)
        assert Fraction(before.macs, after.macs) == Fraction(before.params, after.params) == expected
        assert (before.macs > after.macs) == (kernel > 1 and num_maps >= 2)


@pytest.mark.parametrize(
    ("model", "shape", "params", "macs"),
    [
        (nn.Conv2d(3, 32, 3, padding=1, bias=False), (3, 16, 16), 864, 221_184),
        (nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), (3, 16, 16), 27, 6_912),
        (nn.Conv2d(3, 32, 1, bias=False), (3, 16, 16), 96, 24_576),
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 64, bias=False)), (3, 12, 12), 27_648, 27_648),
        (nn.Conv2d(3, 1, 5, bias=False), (3, 12, 12), 75, 4_800),
    ],
)
def test_single_layers_by_layer_and_in_total(model, shape, params, macs):
    table = lighten.count(model, torch.zeros(1, *shape))
    assert (table.rows[-1].cost.params, table.rows[-1].amount) == (table.total.params, table.amount) == (params, macs)
    assert table.total.trainable_params == table.total.effective_params == params
    assert table.total.weight_bytes == 4 * params


def test_a_separable_layer_has_seven_times_fewer():
    separable = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), nn.Conv2d(3, 32, 1, bias=False))
    total = lighten.count(separable, torch.zeros(1, 3, 16, 16)).total
    assert (total.params, round(864 / total.params, 2), total.macs) == (123, 7.02, 6_912 + 24_576)


@pytest.fixture(scope="module")
def zoo() -> dict:
    pytest.importorskip("timm")
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "count_zoo.py"))


@pytest.mark.filterwarnings("ignore")  # what other packages warn of isn't ours
@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5", "vit_b_16", "swin_t"])
def test_a_sample_of_torchvision_agrees_with_flop_counter_mode(zoo, name):
    row = zoo["checked"](name, zoo["built"](models.get_model, name), (3, 224, 224))
    assert row["agrees"] and row["uncounted"] == {} and row["macs"] > 10**7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["convnext_atto", "ghostnet_050", "halonet26t", "lambda_resnet26t", "mobilevit_xxs", "tf_mixnet_s"]
)
def test_a_sample_of_timm_agrees_with_flop_counter_mode(zoo, name):
    model = zoo["built"](zoo["timm"].create_model, name)
    row = zoo["checked"](name, model, model.default_cfg["input_size"])
    assert row["agrees"] and row["uncounted"] == {} and row["macs"] > 10**7


def test_the_comparison_tells_when_they_differ(zoo):
    """FlopCounterMode sees nothing of a recurrent layer on the processor."""

    row = zoo["checked"]("reader", nn.LSTM(8, 4), (5, 8))
    assert not row["agrees"] and (row["macs"], row["torch_macs"]) == (5 * 16 * 12, 0)
