"""How many channels a layer keeps under a width multiplier."""

import math

from lighten.errors import LightenError


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least one of it, and never more than 10 % below `channels`.

    The rule of the reference implementations of MobileNet V2 and V3; a half rounds up.
    """
    nearest = max(divisor, math.floor(channels / divisor + 0.5) * divisor)
    return nearest if nearest >= 0.9 * channels else nearest + divisor


def scaled(channels: int, alpha: float) -> int:
    """`channels` times the width multiplier `alpha`, as a multiple of 8.

    Raises LightenError where not one channel is left, or `alpha` is infinite or no number.
    """
    if not 1 <= alpha * channels < math.inf:
        least = 1 / channels
        raise LightenError(
            f"alpha={alpha} leaves no channels of a layer that has {channels}; it must be a number from {least} on"
        )
    return divisible(alpha * channels)
