"""What a network does for nothing, and what will surprise its user: findings that can be read off one recorded pass.

A rule is a function that reads a `Record` and gives findings; `RULES` lists all. What a rule can't see it doesn't
report: padding by a layer of its own, norms that are functions, axes of an example that isn't one batch of images.
"""

import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.network.cost import CONVOLUTIONS, TRANSPOSED
from lighten.network.record import Example, ModuleCall, OperatorCall, Record, Shape, record, recorded
from lighten.network.table import by
from lighten.references import first_line

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
MULTIPLE = 8  # channels that runtimes work on together; 16 where the processor has AVX-512
FEWEST = 16  # channels; in narrower layers one more or less matters more than the multiple
MOST_PADDING = 0.5  # of a convolution's products; 3×3 with padding 1 has 0.44 on a map of 3×3, and 0.16 on one of 8×8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend. layer: its name, empty for the whole network. macs, params: what mending saves where known."""

    rule: str
    layer: str
    message: str
    macs: int = 0
    params: int = 0


def lint(model: nn.Module, example: Example) -> tuple[Finding, ...]:
    """What could be mended in `model`, rule by rule; the model is left as it was.

    example: as `count` takes it. Raises LightenError where the model fails on it.
    """
    found = record(model, example)
    return tuple(finding for rule in RULES for finding in rule(found))


def wide_kernel(found: Record) -> Iterator[Finding]:
    """A kernel wider than its map: the taps that meet padding at every place are weights that never count."""
    for layer, calls in convolutions(found):
        if not all(is_wider(layer, call) for call in calls):
            continue
        live = {taps for call in calls for taps in product(*(alive for alive, _ in axes_of(layer, call)))}
        num_taps = math.prod(layer.kernel_size)
        dead = num_taps - len(live)
        weights = layer.out_channels * layer.in_channels // layer.groups
        macs = sum(dead * math.prod(call.outputs[0]) * layer.in_channels // layer.groups for call in calls)
        first = calls[0]
        wasted = f"{100 * share_of_padding(layer, calls):.1f} % of its products are with"
        if dead:
            wasted = f"{dead} of {num_taps} taps meet nothing but"
        where = by(map_of(layer, first.inputs[0]))
        message = f"its {by(layer.kernel_size)} kernel is wider than its map of {where}: {wasted} padding"
        yield Finding("wide_kernel", first.name, message, macs, dead * weights)


def padding_taps(found: Record) -> Iterator[Finding]:
    """More than half of a convolution's products are with padding, though its kernel fits on its map.

    As where MobileNet V1's last depthwise layer is written with stride 2 and padding 4: shape and MACs are those of
    stride 1 and padding 1, but two thirds of the products with pixels are gone.
    """
    for layer, calls in convolutions(found):
        if any(is_wider(layer, call) for call in calls):
            continue
        share = share_of_padding(layer, calls)
        if share > MOST_PADDING:
            given = f"stride {by(layer.stride)}, padding {by(padding_of(layer))}"
            where = by(map_of(layer, calls[0].inputs[0]))
            message = f"{100 * share:.1f} % of its products are with padding ({given} on a map of {where})"
            yield Finding("padding_taps", calls[0].name, message)


def one_channel_stem(found: Record) -> Iterator[Finding]:
    """A depthwise convolution of one channel, then a pointwise one: all maps are multiples of one filtered image.

    Together they are a dense kernel of rank 1 (Guo et al. 2018, equation 4), and a dense stem costs next to nothing.
    """
    layers = [(layer, calls[0].name) for layer, calls in convolutions(found)]
    for (layer, name), (after, _) in pairwise(layers):
        is_single = layer.in_channels == layer.out_channels == after.in_channels == 1 < after.out_channels
        if is_single and math.prod(layer.kernel_size) > 1 and math.prod(after.kernel_size) == 1:
            dense = f"one {by(layer.kernel_size)} convolution from 1 to {after.out_channels} channels"
            message = f"all {after.out_channels} maps after it are multiples of one filtered image; use {dense}"
            yield Finding("one_channel_stem", name, message)


def channel_multiples(found: Record) -> Iterator[Finding]:
    """Runtimes compute channels in blocks: 17 take as long as 24. Of maps of one pixel, which cost little, not said.

    Nor of the network's own outputs, and of the last layer that has a weight: there the task gives the number.
    """
    given = {operator.name for operator in found.operators if found.results & set(operator.writes)}
    given |= {operator.name for operator in [operator for operator in found.operators if operator.kind][-1:]}
    for layer, calls in convolutions(found):
        channels, places = layer.out_channels, max(math.prod(map_of(layer, call.outputs[0])) for call in calls)
        if channels % MULTIPLE and channels >= FEWEST and places > 1 and calls[0].name not in given:
            lower = channels - channels % MULTIPLE
            nearest = lower + MULTIPLE * (channels - lower > MULTIPLE // 2)
            message = f"its {channels} output channels are no multiple of {MULTIPLE}: the nearest is {nearest}"
            yield Finding("channel_multiples", calls[0].name, message)


def bias_before_norm(found: Record) -> Iterator[Finding]:
    """A norm over each channel takes the channel's mean away, and with it the bias of the layer before.

    In a trained network, subtract the bias from the norm's running mean to leave it out.
    """
    readers = readers_of(found)
    norms: dict[nn.Module, list[nn.Module | None]] = {}
    for call in found.operators:
        has_bias = isinstance(call.module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)) and call.module.bias is not None
        if has_bias and call.kind:
            norms.setdefault(call.module, []).append(only_reader(found, readers, call))
    names = {call.module: call.name for call in found.modules}
    for layer, followers in norms.items():
        if all(is_per_channel(follower, layer) for follower in followers):
            message = f"the norm '{names[followers[0]]}' takes its bias away: leave the bias out"
            yield Finding("bias_before_norm", names[layer], message, params=layer.bias.numel())


def norm_after_norm(found: Record) -> Iterator[Finding]:
    """Two norms of one kind in a row do what one of them does."""
    kinds = (*BATCH_NORMS, *INSTANCE_NORMS, *OTHER_NORMS)
    readers, names = readers_of(found), {call.module: call.name for call in found.modules}
    said = set()
    for call in found.operators:
        follower = only_reader(found, readers, call) if isinstance(call.module, kinds) else None
        if type(follower) is type(call.module) and call.module not in (follower, *said):
            said.add(call.module)
            params = sum(p.numel() for p in call.module.parameters())
            message = f"the norm '{names[follower]}' follows at once: leave one of them out"
            yield Finding("norm_after_norm", call.name, message, params=params)


def final_softmax(found: Record) -> Iterator[Finding]:
    """A softmax at the end: cross-entropy has one inside, and of probabilities its loss stays above a bound.

    With p between 0 and 1 over n classes the loss is at least ln(e + n − 1) − 1: 5.91 for 1000 classes.
    """
    for call in found.operators:
        if call.operator == "_softmax" and found.results & set(call.writes):
            shape = call.outputs[0]
            axis = call.module.dim if isinstance(call.module, nn.Softmax) else None
            num_classes = shape[axis if axis is not None else 1 if len(shape) == 4 else -1]
            bound = math.log(math.e + num_classes - 1) - 1
            message = (
                f"the network ends in a softmax: cross-entropy, which has its own, can't get below {bound:.2f} "
                f"on {num_classes} classes; give out the logits"
            )
            yield Finding("final_softmax", call.name, message)


def fixed_resolution(found: Record) -> Iterator[Finding]:
    """Fixed pooling, or a flattened map before a linear layer, fits one resolution: at twice the size the pass fails.

    Or pixels end up on the batch axis, so that one image gives several results. Height and width are tried apart.
    """
    image = found.example
    if not isinstance(image, Tensor) or image.ndim != 4:
        return
    for axis, word in ((2, "height"), (3, "width")):
        larger = torch.cat([image, image], dim=axis)
        size = by(larger.shape[2:])
        try:
            again = recorded(found.model, larger, found.device)
        except LightenError as error:
            reason = first_line(error.__cause__ or error)
            message = f"it takes no other {word}: an input of {size} fails here ({reason})"
            yield Finding("fixed_resolution", failing_layer(found, error), message)
            continue
        first, second = (batch_sizes(a_pass) for a_pass in (found, again))
        if first[0][1] == 1 != second[0][1]:  # a result whose first axis is time grows by right
            name = next((name for (name, n), (_, m) in zip(first[1:], second[1:], strict=False) if n != m), "")
            message = f"it takes no other {word}: of one input of {size} it makes {second[0][1]} results"
            yield Finding("fixed_resolution", name, message)


RULES: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    wide_kernel,
    padding_taps,
    one_channel_stem,
    channel_multiples,
    bias_before_norm,
    norm_after_norm,
    final_softmax,
    fixed_resolution,
)


def convolutions(found: Record) -> Iterator[tuple[nn.Module, list[ModuleCall]]]:
    """The convolution layers in the order of their first call, transposed ones left out, with all their calls."""
    calls: dict[nn.Module, list[ModuleCall]] = {}
    for call in found.modules:
        if isinstance(call.module, CONVOLUTIONS):
            calls.setdefault(call.module, []).append(call)
    yield from calls.items()


def map_of(layer: nn.Module, shape: Shape) -> Shape:
    """The spatial axes of a tensor that a convolution reads or writes."""
    return shape[-len(layer.kernel_size) :]


def padding_of(layer: nn.Module) -> tuple[int, ...]:
    """What stands before the first pixel of each axis."""
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        return tuple(d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    return layer.padding


def axes_of(layer: nn.Module, call: ModuleCall) -> Iterator[tuple[set[int], int]]:
    """For each spatial axis: the taps that meet a pixel at some place, and at how many places all taps together do."""
    sizes = zip(
        *(map_of(layer, call.inputs[0]), map_of(layer, call.outputs[0])),
        *(layer.kernel_size, layer.stride, padding_of(layer), layer.dilation),
        strict=True,
    )
    for inputs, outputs, taps, stride, padding, dilation in sizes:
        if layer.padding_mode != "zeros":
            yield set(range(taps)), outputs * taps
            continue
        met = [t for t in range(taps) for o in range(outputs) if 0 <= o * stride - padding + t * dilation < inputs]
        yield set(met), len(met)


def share_of_padding(layer: nn.Module, calls: list[ModuleCall]) -> float:
    """Of a convolution's products, those with padding; a padding mode that repeats pixels has none."""
    places = sum(math.prod(map_of(layer, call.outputs[0])) for call in calls) * math.prod(layer.kernel_size)
    return 1 - sum(math.prod(met for _, met in axes_of(layer, call)) for call in calls) / places


def is_wider(layer: nn.Module, call: ModuleCall) -> bool:
    """Whether a kernel spans more than its map along some axis."""
    sizes = zip(map_of(layer, call.inputs[0]), layer.kernel_size, layer.dilation, strict=True)
    return any(dilation * (taps - 1) + 1 > pixels for pixels, taps, dilation in sizes)


def readers_of(found: Record) -> dict[int, list[nn.Module]]:
    """{storage: the modules whose operators read it}."""
    readers: dict[int, list[nn.Module]] = {}
    for call in found.operators:
        for storage in call.reads:
            readers.setdefault(storage, []).append(call.module)
    return readers


def only_reader(found: Record, readers: dict[int, list[nn.Module]], call: OperatorCall) -> nn.Module | None:
    """The one module that reads what an operator makes; None where several do, and for a view or a network's result.

    An instance norm reads what it made itself, to give it the shape of its input.
    """
    if not call.writes or call.writes[0] in (*call.reads, *found.results):
        return None
    made = call.writes[0]
    others = set(readers.get(made, ())) - ({call.module} if isinstance(call.module, INSTANCE_NORMS) else set())
    return others.pop() if len(others) == 1 else None


def is_per_channel(module: nn.Module | None, layer: nn.Module) -> bool:
    """Whether a module norms each output of a layer by itself; an instance norm takes a linear layer's for pixels."""
    if isinstance(layer, nn.Linear):
        return isinstance(module, nn.BatchNorm1d)
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == module.num_channels
    return isinstance(module, (*BATCH_NORMS, *INSTANCE_NORMS))


def failing_layer(found: Record, error: LightenError) -> str:
    """The innermost module that ran when a pass failed."""
    names = {module: name for name, module in found.model.named_modules()}
    cause = error.__cause__ or error
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(cause.__traceback__)]
    return next((names[it] for it in reversed(running) if isinstance(it, nn.Module) and it in names), "")


def batch_sizes(found: Record) -> list[tuple[str, int]]:
    """(module, length of the first axis of what it makes), in the order of their beginning; the network comes first."""
    return [(call.name, call.outputs[0][0] if call.outputs and call.outputs[0] else 0) for call in found.modules]
