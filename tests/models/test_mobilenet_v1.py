"""MobileNet V1: counts as published, real ImageNet weights, timm's network, folded norms, bad input."""

import io
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.layers.conv_norm import ConvNorm
from lighten.models.mobilenet_v1 import STAGES, mobilenet_v1, timm_names
from lighten.models.weights import load_weights
from lighten.network.trace import trace

TABLES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "mobilenet_tables.py"))
CLASSES = {  # the ten of imagenet_val500; the network has one more in front, background
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def assert_same(model: nn.Module, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        got, expected = model.eval()(x), other.eval()(x)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_counts_of_the_whole_network():
    cost = trace(mobilenet_v1(), torch.zeros(1, 3, 224, 224)).cost
    assert (cost.params, cost.macs) == (4_231_976, 568_740_352)
    assert cost.macs - 1024 * 1000 == 567_716_352


@pytest.mark.parametrize("row", TABLES["V1"], ids=str)
def test_published_tables(row):
    assert TABLES["agrees"](row) or row.note in TABLES["NOTES"]


def test_all_16_points_are_in_the_tables():
    points = {(row.alpha, row.size) for row in TABLES["V1"]}
    assert points == {(alpha, size) for alpha in (1.0, 0.75, 0.5, 0.25) for size in (224, 192, 160, 128)}


@pytest.mark.parametrize(("size", "printed"), [(224, 317), (192, 233), (160, 162), (128, 104)])
def test_the_authors_page_leaves_out_the_stem_at_three_quarters(size, printed):
    macs, _ = TABLES["count"]("mobilenet_v1", 0.75, size)
    stem = 27 * 24 * (size // 2) ** 2
    assert abs((macs - stem) / 1e6 - printed) < 1 < macs / 1e6 - printed


def central_views(archive: Path, size: int) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, size, size) from the centre, short side at size / 0.875 by bicubic interpolation; and the labels."""
    views, labels = [], []
    with zipfile.ZipFile(archive) as files:
        for name in sorted(n for n in files.namelist() if n.endswith(".JPEG")):
            image = Image.open(io.BytesIO(files.read(name))).convert("RGB")
            factor = round(size / 0.875) / min(image.size)
            width, height = (round(side * factor) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - size) // 2, (height - size) // 2
            image = image.crop((left, top, left + size, top + size))
            views.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            labels.append(CLASSES[name.split("/")[0]] + 1)
    return torch.stack(views), torch.tensor(labels)


@pytest.mark.parametrize(("alpha", "size", "accuracy"), [(0.25, 128, 41.4), (0.5, 160, 57.2)])
def test_real_weights(shared_data, alpha, size, accuracy):
    weights = shared_data / "mobilenet_v1" / f"mobilenet_v1_{alpha}_{size}.safetensors"
    archive = shared_data / "imagenet_val500" / "images_224.zip"
    if not (weights.is_file() and archive.is_file()):
        pytest.skip(f"needs '{weights}' and '{archive}'")
    model = mobilenet_v1(alpha=alpha, num_classes=1001, norm=False, pad_end=True).eval()
    load_weights(model, weights)
    views, labels = central_views(archive, size)
    with torch.inference_mode():
        found = torch.cat([model(batch / 127.5 - 1).argmax(1) for batch in views.split(50)])
    assert len(labels) == 500
    assert 100 * (found == labels).double().mean() == pytest.approx(accuracy, abs=0.2)


def test_wrong_number_of_classes_for_real_weights(shared_data):
    weights = shared_data / "mobilenet_v1" / "mobilenet_v1_0.25_128.safetensors"
    if not weights.is_file():
        pytest.skip(f"needs '{weights}'")
    with pytest.raises(LightenError, match="are for 1001 classes, the model has 1000; build it with num_classes=1001"):
        load_weights(mobilenet_v1(alpha=0.25, norm=False), weights)


def timm_state(alpha: float) -> dict[str, Tensor]:
    """Random weights under the names, and in the order, that timm's networks have."""

    def norm(name: str, channels: int) -> dict[str, Tensor]:
        values = {kind: torch.rand(channels) + 0.5 for kind in ("weight", "bias", "running_mean", "running_var")}
        return {f"{name}.{kind}": value for kind, value in values.items()}

    width = int(32 * alpha)
    state = {"conv_stem.weight": torch.randn(width, 3, 3, 3)} | norm("bn1", width)
    for stage, row in enumerate(STAGES):
        for index in range(row.repeats):
            block, out = f"blocks.{stage}.{index}", int(row.channels * alpha)
            state |= {f"{block}.conv_dw.weight": torch.randn(width, 1, 3, 3)} | norm(f"{block}.bn1", width)
            state |= {f"{block}.conv_pw.weight": torch.randn(out, width, 1, 1)} | norm(f"{block}.bn2", out)
            width = out
    return state | {"classifier.weight": torch.randn(10, width), "classifier.bias": torch.randn(10)}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_timms_names(tmp_path, suffix):
    path, state = tmp_path / f"timm{suffix}", timm_state(0.25)
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    model = mobilenet_v1(alpha=0.25, num_classes=10)
    load_weights(model, path)
    ours, names = model.state_dict(), timm_names()
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        assert torch.equal(ours[f"{names[layer]}.{kind}"], tensor)
    order = [name for name in ours if not name.endswith("num_batches_tracked")]
    assert [f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}" for n in state] == order


def test_timms_network_gives_the_same(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilenetv1_100", num_classes=10)
    randomise_norms(theirs)
    torch.save(theirs.state_dict(), tmp_path / "timm.pt")
    ours = mobilenet_v1(num_classes=10)
    load_weights(ours, tmp_path / "timm.pt")
    assert_same(ours, theirs, torch.randn(2, 3, 96, 64))


def test_folded_norms_give_the_same():
    model, folded = mobilenet_v1(alpha=0.25).eval(), mobilenet_v1(alpha=0.25, norm=False)
    randomise_norms(model)
    folded.classifier.load_state_dict(model.classifier.state_dict())
    sources = [layer for layer in model.modules() if isinstance(layer, ConvNorm)]
    targets = [layer for layer in folded.modules() if isinstance(layer, ConvNorm)]
    for source, target in zip(sources, targets, strict=True):
        target.conv.load_state_dict(fuse_conv_bn_eval(source.conv, source.norm).state_dict())
    assert_same(folded, model, torch.randn(2, 3, 64, 64))


def test_padding_at_the_end():
    plain, at_end = ConvNorm(3, 8, stride=2).eval(), ConvNorm(3, 8, stride=2, pad_end=True).eval()
    at_end.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 16, 16)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), plain.conv.weight, stride=2)
    with torch.no_grad():
        torch.testing.assert_close(at_end(x), plain.norm(expected).relu())
        assert at_end(x).shape == plain(x).shape
        assert (at_end(x) - plain(x)).abs().max() > 0.1 * plain(x).abs().max()


def test_options():
    model = mobilenet_v1(alpha=0.5, num_classes=7, in_channels=1, dropout=0.3, stem_stride=1, activation="relu").eval()
    assert model(torch.randn(2, 1, 16, 33)).shape == (2, 7)
    assert model.classifier[0].p == 0.3 and model.total_stride == 16
    kinds = {type(module) for module in model.modules()}
    assert nn.ReLU in kinds and nn.ReLU6 not in kinds


def test_the_last_depthwise_convolution_keeps_its_map():
    last = mobilenet_v1(alpha=0.25).features[-1].depthwise.conv
    assert (last.stride, last.padding) == ((1, 1), (1, 1))


def test_weights_start_as_in_the_authors_code():
    model = mobilenet_v1(norm=False)
    for layer in (model.features[-1].pointwise.conv, model.classifier[1]):
        assert layer.weight.abs().max() <= 0.18
        assert layer.weight.std().item() == pytest.approx(0.09 * 0.88, rel=0.01)  # 0.88: the cut tails
        assert not layer.bias.any()


def test_refused_options():
    with pytest.raises(LightenError, match="alpha=0.01 leaves no channels of a layer that has 32"):
        mobilenet_v1(alpha=0.01)
    with pytest.raises(LightenError, match="there is no activation 'gelu'; there are relu6, relu"):
        mobilenet_v1(activation="gelu")


@pytest.mark.parametrize(("stem_stride", "least"), [(2, 32), (1, 16)])
def test_an_input_too_small_for_the_strides(stem_stride, least):
    model = mobilenet_v1(alpha=0.25, stem_stride=stem_stride).eval()
    message = (
        rf"an input of {least - 1}×40 is too small: the strides make {least}, so it must be {least}×{least} or more"
    )
    with pytest.raises(LightenError, match=message):
        model(torch.zeros(1, 3, least - 1, 40))
    assert model(torch.zeros(1, 3, least, least)).shape == (1, 1000)


@pytest.mark.parametrize("folded", [False, True])
def test_export_agrees(tmp_path, folded):
    model = mobilenet_v1(alpha=0.25, num_classes=10, norm=not folded, pad_end=folded)
    randomise_norms(model)
    x = torch.randn(3, 3, 32, 40)
    export_onnx(model, x, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", x).agrees
