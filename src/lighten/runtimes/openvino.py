"""OpenVINO on the processor; an extra."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.onnx import model_bytes
from lighten.runtimes.onnxruntime import Session


class OpenVino:
    """One stream of `threads` threads in float32, even where the processor would prefer bfloat16."""

    name = "openvino"

    def version(self) -> str:
        return load().__version__.split("-")[0]

    def prepare(self, model: nn.Module, example: Tensor, threads: int) -> Callable[[], np.ndarray]:
        session, inputs = self.session(model_bytes(model, example), threads), example.numpy(force=True)
        return lambda: session(inputs)

    def session(self, source: bytes | Path, threads: int) -> Session:
        """A call from an input array to the output array of an ONNX file; raises LightenError where it can't load."""
        core = load().Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        try:
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            request = core.compile_model(core.read_model(content, b""), "CPU", settings).create_infer_request()
        except Exception as error:
            name = "a model" if isinstance(source, bytes) else f"'{source}'"
            raise LightenError(f"OpenVINO can't load {name}: {str(error).strip().splitlines()[0]}") from error
        return lambda inputs: request.infer([inputs])[0]


def load() -> ModuleType:
    """The package, or a LightenError that says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise LightenError("OpenVINO isn't installed; install it with: pip install 'lighten[openvino]'") from error
    return openvino
