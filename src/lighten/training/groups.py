"""The parameters of a network in groups of their own learning rate and weight decay."""

from collections.abc import Mapping

from torch import nn

from lighten.errors import LightenError


def parameter_groups(model: nn.Module, weight_decay: float, rates: Mapping[str, float]) -> list[dict]:
    """Groups for an optimizer: `scale` multiplies the learning rate; vectors (norms, biases) don't decay.

    rates: {part of the network: scale}, where a part is a module's or parameter's full name; of several that hold a
    parameter the longest name counts, and a scale of 0 freezes. Raises LightenError for a part that holds none, and
    for a scale below 0.
    """
    for part, scale in rates.items():
        if not scale >= 0:
            raise LightenError(f"the factor of the learning rate of '{part}' must be 0 or more, not {scale}")
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        part = max((p for p in rates if f"{name}.".startswith(f"{p}.")), key=len, default=None)
        used.add(part)
        scale = 1.0 if part is None else rates[part]
        decay = weight_decay if parameter.ndim > 1 else 0.0
        members.setdefault((scale, decay), []).append(parameter)
    for part in rates.keys() - used:
        known = ", ".join(name for name, _ in model.named_children())
        raise LightenError(f"no parameter belongs to '{part}', which a learning rate was given for; parts are {known}")
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in members.items()
    ]
