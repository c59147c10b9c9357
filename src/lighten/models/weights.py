"""Trained weights from a file into a network, checked before anything is changed."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.references import first_line

NESTED = ("state_dict", "model_state_dict", "model")  # under which training scripts store the weights
PREFIX = "module."  # left by DataParallel
COUNTER = "num_batches_tracked"  # of batch norm: may be absent

Layers = dict[str, dict[str, Tensor]]  # {layer: {kind of tensor: tensor}}


def load_weights(model: nn.Module, path: str | Path, new_head: bool = False) -> None:
    """Fill `model` from a `.safetensors`, `.pt` or `.pth` file; dtypes are converted to the model's.

    A state dict nested in a checkpoint and the prefix of DataParallel are accepted, absent batch counters of
    batch norm too. Names may be the model's, those of its `published_names`, or others where every layer fits in order
    (`by_order`). Raises LightenError, and leaves the model as it was, where the file can't be read, where names, shapes
    or the number of classes differ, or where a value isn't finite. new_head: where only the number of classes differs,
    the last layer keeps the model's own weights instead.
    """
    source = Path(path)
    wanted = model.state_dict()
    given = published(read_weights(source), getattr(model, "published_names", {}))
    if source.suffix == ".safetensors":
        given = sorted_naturally(given, wanted)
    weights = by_order(given, wanted) or given
    if new_head:
        weights = with_own_head(wanted, weights)
    check_match(wanted, weights, source)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise LightenError(f"the weights '{source}' hold NaN or infinity in '{name}'")
    model.load_state_dict(weights, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that a file holds, prefix removed; pickled code is never run."""
    if not path.is_file():
        raise LightenError(f"there is no weights file '{path}'")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise LightenError(f"cannot read the weights '{path}': the name must end in .safetensors, .pt or .pth")
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) and "GLOBAL" in str(error):
            raise LightenError(f"'{path}' holds pickled code; save the model's state_dict() instead") from error
        raise LightenError(f"cannot read the weights '{path}', the file is damaged: {first_line(error)}") from error
    return state_dict_in(stored, path)


def state_dict_in(stored: object, path: Path) -> dict[str, Tensor]:
    """The state dict itself or nested under one of the usual names."""
    for key in NESTED:
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
            break
    if not isinstance(stored, dict) or not stored or not all(isinstance(v, Tensor) for v in stored.values()):
        raise LightenError(f"'{path}' holds no state dict: neither tensors by name nor such under {', '.join(NESTED)}")
    if all(name.startswith(PREFIX) for name in stored):
        return {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    return dict(stored)


def published(given: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The tensors under the model's names, where `names` ({published layer: the model's layer}) knows all layers."""
    layers = layers_of(given)
    if not all(layer in names for layer in layers):
        return given
    return {f"{names[layer]}.{kind}": tensor for layer, kinds in layers.items() for kind, tensor in kinds.items()}


def sorted_naturally(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sorted by name, 9 before 10, since the file keeps no order; parts that are named as the model's, as there."""
    parts = {name.partition(".")[0]: position for position, name in enumerate(wanted)}

    def key(name: str) -> tuple[int, list[tuple[str, int]]]:
        pieces = re.findall(r"(\D*)(\d*)", name)
        return parts.get(name.partition(".")[0], len(wanted)), [(text, int(digits or 0)) for text, digits in pieces]

    return {name: given[name] for name in sorted(given, key=key)}


def by_order(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The given tensors under the wanted names, layer by layer in order; None unless every layer fits its counterpart.

    Two layers fit where they have the same kinds of tensors (weight, bias, running_mean, …) of the same shapes; a 1×1
    convolution fits a linear layer. The last layer may differ in its outputs, for `check_match` to say so.
    Nothing fits where a name that both know would go to another layer.
    """
    ours, theirs = layers_of(wanted), layers_of(given)
    if len(ours) != len(theirs) or any(b in ours and a != b for a, b in zip(ours, theirs, strict=True)):
        return None
    fitted = {}
    for number, (layer, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        own, found = ours[layer], theirs[other]
        if own.keys() - {COUNTER} != found.keys() - {COUNTER}:
            return None
        first_axis = 1 if number == len(ours) else 0
        for kind in own.keys() & found.keys():
            tensor = found[kind]
            if own[kind].ndim == 2 and tensor.shape[2:] == (1, 1):
                tensor = tensor.flatten(1)
            if tensor.shape[first_axis:] != own[kind].shape[first_axis:]:
                return None
            fitted[f"{layer}.{kind}".removeprefix(".")] = tensor
    return fitted


def layers_of(weights: dict[str, Tensor]) -> Layers:
    """The tensors of each layer, in the order in which layers first appear."""
    layers: Layers = {}
    for name, tensor in weights.items():
        layer, _, kind = name.rpartition(".")
        layers.setdefault(layer, {})[kind] = tensor
    return layers


def check_match(wanted: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> None:
    """Raise one LightenError that counts missing, unknown and misshapen tensors and names up to three of each.

    Where only the number of classes differs, it names both.
    """
    missing = [n for n in wanted if n not in given and not n.endswith(COUNTER)]
    unknown = [n for n in given if n not in wanted]
    misshapen = [n for n in wanted if n in given and given[n].shape != wanted[n].shape]
    if not missing and not unknown and only_classes_differ(wanted, given, misshapen):
        theirs, ours = len(given[misshapen[0]]), len(wanted[misshapen[0]])
        raise LightenError(
            f"the weights '{path}' are for {theirs} classes, the model has {ours}; build it with num_classes={theirs}"
        )
    shapes = [f"{n} {tuple(given[n].shape)} for {tuple(wanted[n].shape)}" for n in misshapen]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    problems = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds if names]
    if problems:
        raise LightenError(f"the weights '{path}' are not this model's: {'; '.join(problems)}")


def with_own_head(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors, those of the last layer replaced by the wanted ones where only the classes differ."""
    misshapen = [n for n in wanted if n in given and given[n].shape != wanted[n].shape]
    return given | {n: wanted[n] for n in misshapen} if only_classes_differ(wanted, given, misshapen) else given


def only_classes_differ(wanted: dict[str, Tensor], given: dict[str, Tensor], misshapen: list[str]) -> bool:
    """Whether all tensors of the last layer, and no others, differ: all alike, and in their first axis alone."""
    last = list(layers_of(wanted))[-1]
    if misshapen != [name for name in wanted if name.rpartition(".")[0] == last]:
        return False
    sizes = {len(given[name]) if given[name].ndim else 0 for name in misshapen}
    return len(sizes) == 1 and all(given[name].shape[1:] == wanted[name].shape[1:] for name in misshapen)


def some(names: list[str]) -> str:
    """Up to three of the names."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
