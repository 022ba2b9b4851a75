"""A Keras network as an ONNX graph, for networks of common layers.

Written here, because what converts TensorFlow graphs in general is large and gave a broken graph
for EfficientNetV2. Maps are kept as ONNX wants them, channels before height and width, and are
turned only where a layer works along the channels of each place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tripletkit.errors import ExportError
from tripletkit.features.onnx_layers import WRITERS

# The first with Gelu; every ONNX Runtime since 1.17 runs it.
_OPSET = 20
_IR_VERSION = 9
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

    def write_model(self, model: keras.Model) -> None:
        """Write the layers of a model whose inputs are known."""
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._write_call(node.operation, node.arguments, node.outputs)

    def _write_call(self, layer: Any, arguments: Any, outputs: list[keras.KerasTensor]) -> None:
        inputs = arguments.keras_tensors
        if isinstance(layer, keras.Sequential):
            layer = layer._functional
        if isinstance(layer, keras.Model):
            for inside, outside in zip(layer.inputs, inputs, strict=True):
                self.pass_on(outside, inside)
            self.write_model(layer)
            for inside, outside in zip(layer.outputs, outputs, strict=True):
                self.pass_on(inside, outside)
            return
        write = WRITERS.get(type(layer).__name__)
        if write is None:
            raise ExportError(
                f"layer {layer.name}: expected one of those that can be written as ONNX, got "
                f"{type(layer).__name__}"
            )
        (output,) = outputs
        write(self, layer, inputs, output, arguments)

    def _new_name(self, kind: str) -> str:
        self._n_names += 1
        return f"{kind.lower()}_{self._n_names}"


def make_onnx_model(
    model: keras.Model, output_name: str = "features", *, input_names: list[str] | None = None
) -> onnx.ModelProto:
    """Return a functional Keras model as ONNX, with the batch size left open.

    Args:
        model: with one output `(batch, n)`; inputs as Keras has them, float32.
        output_name: what its output is called.
        input_names: defaults to `image`, of a model with several inputs to their own names.
    Raises:
        ExportError: naming the first layer that cannot be written.
    """
    writer = GraphWriter()
    names = input_names or (
        ["image"] if len(model.inputs) == 1 else [tensor.name for tensor in model.inputs]
    )
    inputs = []
    for name, tensor in zip(names, model.inputs, strict=True):
        writer.put(tensor, name, "places" if len(tensor.shape) == 4 else "plain")
        shape = ["batch", *tensor.shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    writer.write_model(model)
    result = writer.get(model.outputs[0], "places")
    writer.nodes.append(helper.make_node("Identity", [result], [output_name]))
    shape = ["batch", *model.outputs[0].shape[1:]]
    outputs = [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(
        list(_needed(writer.nodes, output_name)), "network", inputs, outputs, writer.weights
    )
    return helper.make_model(
        graph,
        producer_name="tripletkit",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )


def write_onnx(model: keras.Model, path: Path, output_name: str = "features") -> None:
    """Write a Keras model to an ONNX file; see `make_onnx_model`."""
    path.write_bytes(make_onnx_model(model, output_name).SerializeToString())


def _needed(nodes: list[onnx.NodeProto], output: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that an output depends on, in their order."""
    needed = {output}
    kept = []
    for node in reversed(nodes):
        if node.output[0] in needed:
            kept.append(node)
            needed.update(node.input)
    return reversed(kept)
