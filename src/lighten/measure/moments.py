"""Second moments of what a layer reads and of the gradient of what it writes, over calibration batches.

C = E[x xᵀ] over unfolded patches and G = E[g gᵀ] over output gradients are the factors of the Kronecker-factored
Fisher (Martens & Grosse 2015; for convolutions Grosse & Martens 2016, eq. 27). The gradients are those of the
network's own predictive distribution: no labels are needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.rewrites.base import Layer, shape_of

MAX_POSITIONS_PER_AXIS = 8  # of an image, drawn anew for each batch: more add cost, not precision


@dataclass(frozen=True, slots=True)
class Moments:
    """Of one layer, in float32. c_BPP: P = I·K unfolded inputs, averaged over positions and images.

    g_BOO: output gradients, *summed* over an image's positions and averaged over images, so that
    ½ tr(G ΔW C ΔWᵀ) is the loss per image.
    """

    c_BPP: Tensor
    g_BOO: Tensor


class Collector:
    """A hook on one layer that adds up its moments while batches pass through the network."""

    def __init__(self, layer: Layer):
        shape = shape_of(layer)
        self.layer, self.shape, self.num_images, self.num_patches = layer, shape, 0, 0
        size = shape.num_inputs * shape.num_taps
        self.c_BPP = torch.zeros(shape.num_groups, size, size)
        self.g_BOO = torch.zeros(shape.num_groups, shape.num_outputs, shape.num_outputs)
        self.output: Tensor | None = None
        self.handle = layer.register_forward_hook(self.read)

    def read(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """Hands a copy on, so that an activation in place changes neither the output nor where its gradient is read."""
        x_BPN = patches(layer, inputs[0].detach(), self.shape.num_groups)
        self.c_BPP += x_BPN @ x_BPN.mT
        self.num_patches += x_BPN.shape[-1]
        self.output = output if output.requires_grad else output.requires_grad_()
        return self.output.clone()

    def read_gradient(self, gradient: Tensor, num_images: int) -> None:
        columns = gradient if isinstance(self.layer, nn.Linear) else gradient.movedim(1, -1)
        g_BON = columns.reshape(-1, self.shape.num_groups, self.shape.num_outputs).permute(1, 2, 0)
        self.g_BOO += g_BON @ g_BON.mT
        self.num_images += num_images

    def moments(self) -> Moments:
        return Moments(self.c_BPP / self.num_patches, self.g_BOO / self.num_images)


def patches(layer: Layer, x: Tensor, num_groups: int) -> Tensor:
    """x_BPN: what output positions of the layer read, N positions of all images, MAX_POSITIONS_PER_AXIS² of each."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).T[None]
    rank = len(layer.kernel_size)
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=padding_mode(layer))
    for axis, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    for axis in range(2, 2 + rank):
        if x.shape[axis] > MAX_POSITIONS_PER_AXIS:
            x = x.index_select(axis, torch.randperm(x.shape[axis])[:MAX_POSITIONS_PER_AXIS])
    channels_first = x.transpose(0, 1).movedim(tuple(range(2 + rank, 2 + 2 * rank)), tuple(range(1, 1 + rank)))
    return channels_first.reshape(num_groups, x.shape[1] // num_groups * shape_of(layer).num_taps, -1)


def padding_mode(layer: Layer) -> str:
    """The layer's padding mode in the words of `torch.nn.functional.pad`."""
    return "constant" if layer.padding_mode == "zeros" else layer.padding_mode


def collect(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    memory_limit_bytes: int = 2 << 30,
    seed: int = 0,
    temperature: float = 1.0,
) -> dict[str, Moments]:
    """Moments of the named layers; sites are taken in groups so that the running sums stay under the limit.

    temperature: of the answers whose Fisher G is of; above 1, images that the network is sure of tell something too.
    The model is in evaluation mode. Raises LightenError where a value that isn't finite is met, naming the layer.
    """
    found: dict[str, Moments] = {}
    for group in groups_within(model, list(names), memory_limit_bytes):
        collectors = {name: Collector(model.get_submodule(name)) for name in group}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for inputs, _ in batches:
                    read_batch(model, inputs, list(collectors.values()), temperature)
        finally:
            for collector in collectors.values():
                collector.handle.remove()
        found |= {name: collector.moments() for name, collector in collectors.items()}
    for name, moments in found.items():
        if not (moments.c_BPP.isfinite().all() and moments.g_BOO.isfinite().all()):
            raise LightenError(f"calibration: the layer '{name}' meets values that aren't finite (NaN or infinity)")
    return found


def groups_within(model: nn.Module, names: list[str], limit_bytes: int) -> list[list[str]]:
    """Consecutive names whose moments fit together under the limit; a layer larger than the limit stands alone."""
    groups: list[list[str]] = []
    used = limit_bytes
    for name in names:
        shape = shape_of(model.get_submodule(name))
        size = 4 * shape.num_groups * ((shape.num_inputs * shape.num_taps) ** 2 + shape.num_outputs**2)
        if used + size > limit_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def read_batch(model: nn.Module, inputs: Tensor, collectors: list[Collector], temperature: float = 1.0) -> None:
    """One pass forward and back, from a random vector whose second moment is exactly the Fisher of the logits.

    For p = softmax(logits / T), v = √p ∘ ξ − p (√p·ξ) with signs ξ = ±1 has E[v vᵀ] = diag(p) − p pᵀ, the Hessian of
    T² KL: what sampled labels give too, with less variance, since every class takes part in every sample.
    """
    with torch.enable_grad():
        logits = model(inputs)
        p = (logits.detach() / temperature).softmax(-1)
        signs = torch.randint(0, 2, p.shape).mul_(2).sub_(1).to(p)
        v = p.sqrt() * signs
        v -= p * v.sum(-1, keepdim=True)
        outputs = [collector.output for collector in collectors]
        gradients = torch.autograd.grad(logits, outputs, v, materialize_grads=True)
    for collector, gradient in zip(collectors, gradients, strict=True):
        collector.read_gradient(gradient, len(inputs))
        collector.output = None
