"""What is done to a whole training batch: mixed images with mixed labels, erased rectangles."""

from collections.abc import Callable

import torch
from torch import Tensor

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(num_classes: int, mixup: float, cutmix: float, erase: float) -> Mixing:
    """From (inputs, labels) to what is learnt: labels become shares of (N, num_classes) where images are mixed.

    mixup, cutmix: parameter of the Beta distribution of the shares (Zhang et al. 2018; Yun et al. 2019), 0 for none;
    with both, each batch draws one of them. erase: probability of a random rectangle per image (Zhong et al. 2020).
    """
    from torchvision.transforms import v2  # takes as long to import as torch itself

    kinds = [
        kind(alpha=alpha, num_classes=num_classes) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha
    ]
    mix = v2.RandomChoice(kinds) if kinds else None
    rectangle = v2.RandomErasing(p=erase)

    def apply(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if erase:
            inputs = torch.stack([rectangle(image) for image in inputs])
        return mix(inputs, labels) if mix else (inputs, labels)

    return apply
