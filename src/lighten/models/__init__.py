"""The networks that lighten knows by name, and how a name, options or a user's own callable become a network."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from lighten.errors import LightenError
from lighten.models.crnn import crnn, crnn_separable
from lighten.models.digits_vgg import digits_vgg
from lighten.models.easyocr import easyocr_english_g2
from lighten.models.mobilenet_v1 import mobilenet_v1
from lighten.models.mobilenet_v2 import mobilenet_v2
from lighten.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from lighten.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56
from lighten.models.vgg import vgg16_bn
from lighten.models.weights import load_weights
from lighten.references import (
    Option,
    Options,
    check_options,
    first_line,
    join_options,
    load_callable,
    nearest,
    split_options,
)

__all__ = ["MODELS", "BuiltIn", "ModelSpec", "build_model", "input_shape", "load_weights", "parse_model"]


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A network known by name; input_shape: of one sample, without the batch axis."""

    constructor: Callable[..., nn.Module]
    input_shape: tuple[int, ...]


MODELS: dict[str, BuiltIn] = {
    "crnn": BuiltIn(crnn, (1, 32, 320)),
    "crnn_separable": BuiltIn(crnn_separable, (1, 32, 320)),
    "digits_vgg": BuiltIn(digits_vgg, (1, 16, 16)),
    "easyocr_english_g2": BuiltIn(easyocr_english_g2, (1, 64, 256)),
    "mobilenet_v1": BuiltIn(mobilenet_v1, (3, 224, 224)),
    "mobilenet_v2": BuiltIn(mobilenet_v2, (3, 224, 224)),
    "mobilenet_v3_large": BuiltIn(mobilenet_v3_large, (3, 224, 224)),
    "mobilenet_v3_small": BuiltIn(mobilenet_v3_small, (3, 224, 224)),
    "resnet20": BuiltIn(resnet20, (3, 32, 32)),
    "resnet32": BuiltIn(resnet32, (3, 32, 32)),
    "resnet44": BuiltIn(resnet44, (3, 32, 32)),
    "resnet56": BuiltIn(resnet56, (3, 32, 32)),
    "vgg16_bn": BuiltIn(vgg16_bn, (3, 32, 32)),
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How to construct a network, with fresh weights.

    text: canonical, so that a folder may record it; `parse_model(spec.text) == spec`.
    input_shape: of one sample; None for a user's callable.
    """

    text: str
    constructor: Callable[..., nn.Module]
    options: Options = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None

    def build(self) -> nn.Module:
        """The network; raises LightenError where the constructor fails or gives something else."""
        try:
            model = self.constructor(**self.options)
        except Exception as error:
            raise LightenError(f"cannot build the model '{self.text}': {first_line(error)}") from error
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise LightenError(f"the model '{self.text}' gives a {kind}; it must give a torch.nn.Module")
        return model


def parse_model(text: str, **options: Option) -> ModelSpec:
    """What `NAME`, `NAME:key=value,…` or `package.module:callable[:key=value,…]` means; `options` override the text's.

    Raises LightenError for unknown names and options, and for what can't be imported.
    """
    name, chosen = split_options(text)
    chosen |= options
    if name in MODELS:
        constructor, shape = MODELS[name].constructor, MODELS[name].input_shape
    elif ":" in name:
        constructor, shape = load_callable(name, "model"), None
    else:
        hint = nearest(name, MODELS) or f"; known are {', '.join(MODELS)}, and package.module:callable"
        raise LightenError(f"there is no model '{name}'{hint}")
    if isinstance(constructor, nn.Module):
        raise LightenError(f"'{name}' is a network; needed is a callable that makes one, so that it can be rebuilt")
    check_options(name, constructor, chosen)
    return ModelSpec(join_options(name, chosen), constructor, chosen, shape)


def build_model(text: str, **options: Option) -> nn.Module:
    """The network that `text` names, with fresh weights, in training mode as constructors leave it."""
    return parse_model(text, **options).build()


def input_shape(text: str) -> tuple[int, ...] | None:
    """The shape of one input sample of a built-in network, without the batch axis; None for a user's callable."""
    return parse_model(text).input_shape
