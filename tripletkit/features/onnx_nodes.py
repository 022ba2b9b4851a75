"""The nodes and weights of an ONNX graph while a Keras network is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tripletkit.features.keras_backend import keras

_TO_MAPS, _TO_PLACES = (0, 3, 1, 2), (0, 2, 3, 1)


class GraphWriter:
    """The nodes and weights of a graph while it is written.

    A value is called by its name in the graph. Of a value with height and width the graph has up
    to two forms: `maps`, (batch, channels, height, width), and `places`, as Keras has it.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        # id of a Keras tensor -> form -> name; `plain` for all that has no height and width.
        self._names: dict[int, dict[str, str]] = {}
        # Ids must not be given to others while they are in use.
        self._kept: list[keras.KerasTensor] = []
        self._n_names = 0
        # id of a padded tensor -> (what was padded, top, left, bottom, right); written only where
        # a layer cannot pad by itself, because ONNX Runtime leaves its fast form for it.
        self._pads: dict[int, tuple[keras.KerasTensor, list[int]]] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Write a node and return the name of its only output."""
        name = self._new_name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        """Write an array and return its name; floats become float32."""
        values = np.asarray(values)
        if values.dtype.kind == "f":
            values = values.astype(np.float32)
        name = self._new_name("weights")
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def form(self, *tensors: keras.KerasTensor) -> str:
        """Return the form in which some tensors are at hand, the first one's first."""
        if any(len(tensor.shape) != 4 for tensor in tensors):
            return "plain"
        return next(iter(self._names.get(id(tensors[0]), {"maps": ""})))

    def get(self, tensor: keras.KerasTensor, form: str) -> str:
        """Return the name of a tensor in a form, turned if it has only the other one."""
        if id(tensor) not in self._names:
            self._write_padding(tensor)
        names = self._names[id(tensor)]
        if form not in names:
            (name,) = names.values()
            if set(names) == {"plain"}:
                return name
            names[form] = self.add(
                "Transpose", name, perm=_TO_MAPS if form == "maps" else _TO_PLACES
            )
        return names[form]

    def put(self, tensor: keras.KerasTensor, name: str, form: str) -> None:
        """Say what a tensor is called."""
        self._names[id(tensor)] = {form: name}
        self._kept.append(tensor)

    def put_padded(
        self, tensor: keras.KerasTensor, source: keras.KerasTensor, pads: list[int]
    ) -> None:
        """Say that a tensor is another with zeros around: top, left, bottom, right."""
        self._pads[id(tensor)] = source, pads
        self._kept.append(tensor)

    def padding(self, tensor: keras.KerasTensor) -> tuple[keras.KerasTensor, list[int]]:
        """Return what a tensor is without the zeros around it, and how many these are."""
        return self._pads.get(id(tensor), (tensor, [0, 0, 0, 0]))

    def _write_padding(self, tensor: keras.KerasTensor) -> None:
        source, (top, left, bottom, right) = self._pads[id(tensor)]
        pads = self.constant(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        self.put(tensor, self.add("Pad", self.get(source, "maps"), pads), "maps")

    def pass_on(self, source: keras.KerasTensor, tensor: keras.KerasTensor) -> None:
        """Let a tensor be the same value as another."""
        self._names[id(tensor)] = self._names[id(source)]
        self._kept.append(tensor)

    def _new_name(self, kind: str) -> str:
        self._n_names += 1
        return f"{kind.lower()}_{self._n_names}"
