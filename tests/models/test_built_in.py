"""The networks known by name: what they cost, and what names and options mean."""

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.models import MODELS, ModelSpec, build_model, input_shape, parse_model
from lighten.network.trace import trace

GOLDEN = {  # parameters, MACs; the ResNets' parameters: He et al. 2016, table 6
    "crnn": (8_331_301, 2_216_913_408),
    "crnn_separable": (3_561_391, 463_848_960),
    "digits_vgg": (168_426, 6_627_968),
    "easyocr_english_g2": (3_781_345, 959_438_592),
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "vgg16_bn": (14_728_266, 313_201_664),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts(name):
    model = build_model(name)
    cost = trace(model, torch.zeros(1, *input_shape(name))).cost
    assert (sum(p.numel() for p in model.parameters()), cost.macs) == GOLDEN[name]
    assert cost.params == GOLDEN[name][0]


@pytest.mark.parametrize("name", MODELS)
def test_num_classes(name):
    model = build_model(f"{name}:num_classes=7").eval()
    logits = model(torch.randn(2, *input_shape(name)))
    assert (len(logits), logits.shape[-1]) == (2, 7) and logits.ndim == (3 if "crnn" in name or "ocr" in name else 2)


@pytest.mark.parametrize("width", [2, 6, 32])
def test_width_of_resnet(width):
    model = build_model("resnet20", width=width).eval()
    assert [model.conv1.out_channels, model.linear.in_features] == [width, 4 * width]
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_width_of_digits_vgg():
    model = build_model("digits_vgg", width=8).eval()
    assert model.features[0].out_channels == 8
    assert model(torch.randn(3, 1, 16, 16)).shape == (3, 10)


def test_canonical_text_gives_the_same_model():
    spec = parse_model("digits_vgg:width=16,num_classes=4", num_classes=5)
    assert spec.text == "digits_vgg:num_classes=5,width=16"
    assert parse_model(spec.text) == spec
    assert spec.input_shape == (1, 16, 16)
    assert spec.build().classifier[-1].out_features == 5


def test_users_callable():
    spec = parse_model("torch.nn:Linear:in_features=3,out_features=2")
    assert spec == ModelSpec(
        "torch.nn:Linear:in_features=3,out_features=2", nn.Linear, {"in_features": 3, "out_features": 2}, None
    )
    assert spec.build().weight.shape == (2, 3)
    assert input_shape("torch.nn:Linear") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet2", "there is no model 'resnet2'; did you mean resnet32 or resnet20 or resnet56?"),
        ("resnet2:num_classes=3", "there is no model 'resnet2'; did you mean resnet32"),
        ("zzz", "there is no model 'zzz'; known are crnn, crnn_separable, .*, and package.module:callable"),
        ("resnet20:classes=3", "'resnet20' has no option 'classes'; it takes num_classes, width"),
        ("resnet20:width=5", "cannot build the model 'resnet20:width=5': .* an even width of at least 2, not 5"),
        ("mobilenet_v1:alpha=0.001", "'mobilenet_v1:alpha=0.001': alpha=0.001 leaves no channels"),
        ("crnn:head=rnn", "there is no head 'rnn'; there are bilstm, gru, conv"),
        ("resnet20:num_classes=many", "'num_classes' of 'resnet20' must be a whole number, not 'many'"),
        ("resnet20:num_classes=-1", "cannot build the model 'resnet20:num_classes=-1': "),
        ("torch.nn:Linear:wide=3", "'torch.nn:Linear' has no option 'wide'; it takes in_features, out_features"),
        ("torch.nn:Linear", "cannot build the model 'torch.nn:Linear': .*missing 2 required"),
        ("torch.nn:Liner", "'torch.nn' has no 'Liner'; did you mean Linear"),
        ("builtins:dict", "the model 'builtins:dict' gives a dict; it must give a torch.nn.Module"),
        ("no_such_package:f", "cannot load the model 'no_such_package:f': there is no module 'no_such_package'"),
    ],
)
def test_refused_text(text, message):
    with pytest.raises(LightenError, match=message):
        build_model(text)


def test_network_in_place_of_a_constructor(tmp_path, monkeypatch):
    (tmp_path / "own_instance.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LightenError, match="'own_instance:net' is a network; needed is a callable that makes one"):
        parse_model("own_instance:net")
