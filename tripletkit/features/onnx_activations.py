"""How activations are written as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tripletkit.errors import ExportError
from tripletkit.features.onnx_nodes import GraphWriter


def activate(graph: GraphWriter, function: Callable, name: str) -> str:
    """Write an activation behind a value and return its name.

    Raises:
        ExportError: if it is not known.
    """
    kind = getattr(function, "__name__", repr(function))
    if kind not in _ACTIVATIONS:
        raise ExportError(f"expected a known activation, got {kind}")
    return _ACTIVATIONS[kind](graph, name)


def clip(graph: GraphWriter, name: str, low: float, high: float) -> str:
    bounds = (graph.constant(np.array(value, np.float32)) for value in (low, high))
    return graph.add("Clip", name, *bounds)


def _silu(graph: GraphWriter, name: str) -> str:
    return graph.add("Mul", name, graph.add("Sigmoid", name))


def _hard_sigmoid(graph: GraphWriter, name: str) -> str:
    return graph.add("HardSigmoid", name, alpha=1 / 6, beta=0.5)


_ACTIVATIONS: dict[str, Callable[[GraphWriter, str], str]] = {
    "linear": lambda graph, name: name,
    "relu": lambda graph, name: graph.add("Relu", name),
    "relu6": lambda graph, name: clip(graph, name, 0.0, 6.0),
    "sigmoid": lambda graph, name: graph.add("Sigmoid", name),
    "tanh": lambda graph, name: graph.add("Tanh", name),
    "softmax": lambda graph, name: graph.add("Softmax", name, axis=-1),
    "silu": _silu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda graph, name: graph.add("Mul", name, _hard_sigmoid(graph, name)),
    "gelu": lambda graph, name: graph.add("Gelu", name),
}
