"""Where networks run: one small protocol, one file per runtime."""

from lighten.errors import LightenError
from lighten.runtimes.base import Runtime
from lighten.runtimes.onnxruntime import OnnxRuntime
from lighten.runtimes.openvino import OpenVino
from lighten.runtimes.pytorch import PyTorch

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino(), PyTorch())}


def find_runtime(name: str) -> Runtime:
    """The runtime of this name; raises LightenError that lists the names there are."""
    if name not in RUNTIMES:
        raise LightenError(f"unknown runtime '{name}'; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
