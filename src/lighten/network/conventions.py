"""How others count: each convention gives what it counts for every module or operator of a recorded pass."""

from collections.abc import Callable, Mapping

from lighten.errors import LightenError
from lighten.network.counters import fvcore, ptflops, thop, torchinfo
from lighten.network.counters.amounts import Amounts
from lighten.network.record import Record
from lighten.network.trace import sites_of
from lighten.references import nearest


def macs(found: Record) -> Amounts:
    """Multiply-accumulates of convolution, linear, matmul and recurrent gates; no bias, no norm, no activation."""
    return {(site.name, site.kind): site.cost.macs for site in sites_of(found).sites}


def flops(found: Record) -> Amounts:
    """Two operations for each MAC."""
    return {key: 2 * amount for key, amount in macs(found).items()}


CONVENTIONS: dict[str, Callable[[Record], Amounts]] = {
    "macs": macs,
    "flops": flops,
    "torchinfo": torchinfo.torchinfo,
    "fvcore": fvcore.fvcore,
    "ptflops": ptflops.ptflops,
    "thop": thop.thop,
}
UNITS = {
    "macs": "MACs",
    "flops": "FLOPs",
    "torchinfo": "mult-adds",
    "fvcore": "flops",
    "ptflops": "MACs",
    "thop": "MACs",
}
RULES: dict[str, Mapping[str, str]] = {  # {convention: {beginning of a kind: how it counts, in words}}
    "macs": {"": ""},
    "flops": {"": "2 for each MAC"},
    "torchinfo": torchinfo.RULES,
    "fvcore": fvcore.RULES,
    "ptflops": ptflops.RULES,
    "thop": thop.RULES,
}


def convention(name: str) -> Callable[[Record], Amounts]:
    """The convention of that name; raises LightenError where there is none."""
    if name not in CONVENTIONS:
        hint = nearest(name, CONVENTIONS) or f": known are {', '.join(CONVENTIONS)}"
        raise LightenError(f"there is no convention '{name}'{hint}")
    return CONVENTIONS[name]
