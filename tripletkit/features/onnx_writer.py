"""A Keras network as an ONNX graph, for networks of common layers.

Written here, because what converts TensorFlow graphs in general is large and gave a broken graph
for EfficientNetV2. Maps are kept as ONNX wants them, channels before height and width, and are
turned only where a layer works along the channels of each place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto, helper

from tripletkit.errors import ExportError
from tripletkit.features.keras_backend import keras
from tripletkit.features.onnx_layers import WRITERS, GraphWriter

# The first with Gelu; every ONNX Runtime since 1.17 runs it.
_OPSET = 20
_IR_VERSION = 9


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
    model = getattr(model, "_functional", model)
    writer = GraphWriter()
    names = input_names or (
        ["image"] if len(model.inputs) == 1 else [tensor.name for tensor in model.inputs]
    )
    inputs = []
    for name, tensor in zip(names, model.inputs, strict=True):
        writer.put(tensor, name, "places" if len(tensor.shape) == 4 else "plain")
        shape = ["batch", *tensor.shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    _write_model(writer, model)
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


def _write_model(graph: GraphWriter, model: keras.Model) -> None:
    """Write the layers of a model whose inputs are known."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                _write_call(graph, node.operation, node.arguments, node.outputs)


def _write_call(
    graph: GraphWriter, layer: Any, arguments: Any, outputs: list[keras.KerasTensor]
) -> None:
    inputs = arguments.keras_tensors
    if isinstance(layer, keras.Sequential):
        layer = layer._functional
    if isinstance(layer, keras.Model):
        for inside, outside in zip(layer.inputs, inputs, strict=True):
            graph.pass_on(outside, inside)
        _write_model(graph, layer)
        for inside, outside in zip(layer.outputs, outputs, strict=True):
            graph.pass_on(inside, outside)
        return
    write = WRITERS.get(type(layer).__name__)
    if write is None:
        raise ExportError(
            f"layer {layer.name}: expected one of those that can be written as ONNX, got "
            f"{type(layer).__name__}"
        )
    (output,) = outputs
    write(graph, layer, inputs, output, arguments)


def _needed(nodes: list[onnx.NodeProto], output: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that an output depends on, in their order."""
    needed = {output}
    kept = []
    for node in reversed(nodes):
        if node.output[0] in needed:
            kept.append(node)
            needed.update(node.input)
    return reversed(kept)
