"""How others count: each convention gives what it counts for every module or operator of a recorded pass."""

from collections.abc import Callable

from lighten.network.record import Record
from lighten.network.trace import sites_of

Amounts = dict[tuple[str, str], int]  # {(name of the module, kind): amount}


def macs(found: Record) -> Amounts:
    """Multiply-accumulates of convolution, linear, matmul and recurrent gates; no bias, no norm, no activation."""
    return {(site.name, site.kind): site.cost.macs for site in sites_of(found).sites}


def flops(found: Record) -> Amounts:
    """Two operations for each MAC."""
    return {key: 2 * amount for key, amount in macs(found).items()}


CONVENTIONS: dict[str, Callable[[Record], Amounts]] = {"macs": macs, "flops": flops}
UNITS = {"macs": "MACs", "flops": "FLOPs"}
