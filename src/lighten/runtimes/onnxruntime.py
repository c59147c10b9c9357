"""ONNX Runtime on the processor; the default, and what exported files are checked with."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.onnx import model_bytes

Session = Callable[[np.ndarray], np.ndarray]


class OnnxRuntime:
    """All graph optimisations, one operator at a time, `threads` threads within it."""

    name = "onnxruntime"

    def version(self) -> str:
        return load().__version__

    def prepare(self, model: nn.Module, example: Tensor, threads: int) -> Callable[[], np.ndarray]:
        session, inputs = self.session(model_bytes(model, example), threads), example.numpy(force=True)
        return lambda: session(inputs)

    def session(self, source: bytes | Path, threads: int) -> Session:
        """A call from an input array to the output array of an ONNX file; raises LightenError where it can't load."""
        session = open_session(source, session_options(threads))
        name = session.get_inputs()[0].name
        return lambda inputs: session.run(None, {name: inputs})[0]


def session_options(threads: int) -> Any:
    """One operator at a time, all optimisations, no chatter."""
    ort = load()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def open_session(source: bytes | Path, options: Any) -> Any:
    """The package's own session of an ONNX file; raises LightenError where it can't load."""
    model = source if isinstance(source, bytes) else str(source)
    try:
        return load().InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        name = "a model" if isinstance(source, bytes) else f"'{source}'"
        raise LightenError(f"ONNX Runtime can't load {name}: {str(error).strip().splitlines()[0]}") from error


def load() -> ModuleType:
    """The package, or a LightenError that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        message = "ONNX Runtime isn't installed; install it with: pip install 'lighten[onnxruntime]'"
        raise LightenError(message) from error
    return onnxruntime
