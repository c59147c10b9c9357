"""Trained weights from files, sound and unsound."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lighten.errors import LightenError
from lighten.models import build_model, load_weights
from lighten.models.resnet_cifar import resnet20


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    return {n: torch.randn_like(t) if t.is_floating_point() else t + 5 for n, t in network().state_dict().items()}


def assert_filled(model: nn.Module, trained: dict[str, torch.Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, trained[name], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_file_types(tmp_path, trained, suffix):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained, path)
    model = network()
    load_weights(model, str(path))
    assert_filled(model, trained)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_nested_and_prefixed(tmp_path, trained, key):
    torch.save({key: {f"module.{n}": t for n, t in trained.items()}, "epoch": 3}, tmp_path / "checkpoint.pt")
    model = network()
    load_weights(model, tmp_path / "checkpoint.pt")
    assert_filled(model, trained)


def test_half_precision_is_converted(tmp_path, trained):
    halves = {n: t.half() if t.is_floating_point() else t for n, t in trained.items()}
    save_file(halves, tmp_path / "w.safetensors")
    model = network()
    load_weights(model, tmp_path / "w.safetensors")
    assert model[0].weight.dtype == torch.float32
    assert_filled(model, {n: t.float() if t.is_floating_point() else t for n, t in halves.items()})


def test_batch_counters_may_be_missing(tmp_path, trained):
    del trained["1.num_batches_tracked"]
    save_file(trained, tmp_path / "w.safetensors")
    model = network()
    load_weights(model, tmp_path / "w.safetensors")
    assert_filled(model, trained | {"1.num_batches_tracked": torch.tensor(0)})


def broken(trained: dict[str, torch.Tensor], case: str) -> dict:
    match case:
        case "missing":
            return {"0.bias": trained["0.bias"]}
        case "unknown":
            return trained | {"extra.weight": torch.zeros(1)}
        case "misshapen":
            return trained | {"2.bias": torch.zeros(3)}
        case "nan":
            return trained | {"0.bias": torch.tensor([1.0, float("nan")])}
        case "infinite":
            return trained | {"1.running_var": torch.tensor([1.0, float("inf")])}
        case "no tensors":
            return {"epoch": 3}
    return {}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"not this model's: 7 missing \(0.weight, 1.weight, 1.bias, …\)$"),
        ("unknown", r"not this model's: 1 unknown \(extra.weight\)$"),
        ("misshapen", r"not this model's: 1 of another shape \(2.bias \(3,\) for \(2,\)\)$"),
        ("nan", "hold NaN or infinity in '0.bias'"),
        ("infinite", "hold NaN or infinity in '1.running_var'"),
        (
            "no tensors",
            "holds no state dict: neither tensors by name nor such under state_dict, model_state_dict, model",
        ),
        ("empty", "holds no state dict"),
    ],
)
def test_refused_contents_leave_the_model_alone(tmp_path, trained, case, message):
    torch.save(broken(trained, case), tmp_path / "w.pt")
    model = network()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(LightenError, match=message):
        load_weights(model, tmp_path / "w.pt")
    assert_filled(model, before)


def test_all_differences_in_one_sentence(tmp_path):
    torch.save(resnet20(num_classes=7).state_dict() | {"extra": torch.zeros(1)}, tmp_path / "w.pt")
    expected = r"1 unknown \(extra\); 2 of another shape \(linear.weight \(7, 64\) for \(10, 64\), linear.bias"
    with pytest.raises(LightenError, match=expected):
        load_weights(build_model("resnet20"), tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 30, -40])
def test_truncated_file(tmp_path, trained, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LightenError, match=f"cannot read the weights '{path}', the file is damaged: "):
        load_weights(network(), path)


def test_pickled_model_is_not_run(tmp_path):
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(LightenError, match=r"holds pickled code; save the model's state_dict\(\) instead"):
        load_weights(network(), tmp_path / "w.pt")


def test_missing_file_and_unknown_type(tmp_path):
    with pytest.raises(LightenError, match="there is no weights file '.*absent.pt'"):
        load_weights(network(), tmp_path / "absent.pt")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(LightenError, match=r"w.h5': the name must end in .safetensors, .pt or .pth"):
        load_weights(network(), tmp_path / "w.h5")


def test_published_weights_fit(shared_data):
    folder = shared_data / "resnet_cifar10"
    if not folder.is_dir():
        pytest.skip(f"needs the published weights in '{folder}'")
    for name in ("resnet20", "resnet56"):
        model = build_model(name)
        load_weights(model, folder / f"{name}.safetensors")
        assert model.bn1.running_mean.abs().max() > 0


def renamed(trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors as another author would call them; 9 and 10 are in order as numbers only."""
    names = {"0": "net.8.conv", "1": "net.9.bn", "2": "net.10.fc"}
    return {f"{names[n.split('.')[0]]}.{n.split('.')[1]}": tensor for n, tensor in trained.items()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_names_fit_in_order(tmp_path, trained, suffix):
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(renamed(trained), path)
    model = network()
    load_weights(model, path)
    assert_filled(model, trained)


def test_a_pointwise_convolution_fits_a_linear_layer(tmp_path, trained):
    torch.save(renamed(trained | {"2.weight": trained["2.weight"][:, :, None, None]}), tmp_path / "w.pt")
    model = network()
    load_weights(model, tmp_path / "w.pt")
    assert_filled(model, trained)


def other_order(trained: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    given = renamed(trained)
    match case:
        case "layers swapped":
            return dict(reversed(given.items()))
        case "kinds differ":
            del given["net.9.bn.running_var"]
        case "shapes differ":
            given["net.8.conv.weight"] = torch.zeros(2, 1, 5, 5)
        case "a 3×3 convolution for a linear layer":
            given["net.10.fc.weight"] = torch.zeros(2, 2, 3, 3)
        case "a layer more":
            given["net.11.fc.weight"] = torch.zeros(2, 2)
        case "a known name elsewhere":
            return {n.replace("net.10.fc", "0").replace("net.8.conv", "2"): t for n, t in given.items()}
    return given


@pytest.mark.parametrize(
    "case",
    [
        *("layers swapped", "kinds differ", "shapes differ", "a 3×3 convolution for a linear layer", "a layer more"),
        "a known name elsewhere",
    ],
)
def test_what_does_not_fit_in_order_is_refused(tmp_path, trained, case):
    torch.save(other_order(trained, case), tmp_path / "w.pt")
    model = network()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(LightenError, match="are not this model's"):
        load_weights(model, tmp_path / "w.pt")
    assert_filled(model, before)


def test_published_names(tmp_path, trained):
    model = network()
    model.published_names = {"last": "2", "middle": "1", "first": "0", "unused": "3"}
    theirs = {ours: name for name, ours in model.published_names.items()}
    save_file(
        {f"{theirs[n.split('.')[0]]}.{n.split('.')[1]}": t for n, t in trained.items()}, tmp_path / "w.safetensors"
    )
    load_weights(model, tmp_path / "w.safetensors")
    assert_filled(model, trained)


@pytest.mark.parametrize("names", [dict, renamed])
def test_another_number_of_classes(tmp_path, trained, names):
    given = names(trained | {"2.weight": torch.zeros(7, 2), "2.bias": torch.zeros(7)})
    torch.save(given, tmp_path / "w.pt")
    expected = r"w.pt' are for 7 classes, the model has 2; build it with num_classes=7$"
    with pytest.raises(LightenError, match=expected):
        load_weights(network(), tmp_path / "w.pt")


def test_a_new_head_keeps_its_own_weights(tmp_path):
    torch.manual_seed(1)
    stored, model = build_model("digits_vgg:width=4"), build_model("digits_vgg:width=4,num_classes=3")
    own = model.classifier[-1].weight.clone()
    save_file(stored.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(LightenError, match="are for 10 classes, the model has 3"):
        load_weights(model, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors", new_head=True)
    assert torch.equal(model.classifier[-1].weight, own)
    assert torch.equal(model.features[0].weight, stored.features[0].weight)


def test_a_new_head_excuses_nothing_else(tmp_path):
    save_file(build_model("digits_vgg:width=8").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(LightenError, match="of another shape"):
        load_weights(build_model("digits_vgg:width=4,num_classes=3"), tmp_path / "w.safetensors", new_head=True)
