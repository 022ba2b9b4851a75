"""A Keras network as an ONNX graph, for networks of common layers.

Written here, because what converts TensorFlow graphs in general is large and gave a broken graph
for EfficientNetV2. Of a value with height and width the graph has up to two forms: `places`, as
Keras has it, and `maps`, as ONNX wants it, with channels before height and width. It is turned only
where a layer needs the other form. All other values have one form, which is called `places` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tripletkit.errors import NetworkFileError
from tripletkit.features.keras_backend import keras

# The first with Gelu; every ONNX Runtime since 1.17 runs it.
_OPSET = 20
_IR_VERSION = 9
_TURNS = {"maps": (0, 3, 1, 2), "places": (0, 2, 3, 1)}


def make_onnx_model(
    model: keras.Model, output_name: str = "features", *, input_names: list[str] | None = None
) -> onnx.ModelProto:
    """Return a functional Keras model with one output `(batch, n)` as ONNX; its input is `image`,
    several keep their names. `NetworkFileError` names the first layer that cannot be written."""
    model = getattr(model, "_functional", model)
    graph = _GraphWriter()
    names = input_names or (
        ["image"] if len(model.inputs) == 1 else [tensor.name for tensor in model.inputs]
    )
    inputs = []
    for name, tensor in zip(names, model.inputs, strict=True):
        graph.put(tensor, name)
        shape = ["batch", *tensor.shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    _write_model(graph, model)
    result = graph.get(model.outputs[0])
    graph.nodes.append(helper.make_node("Identity", [result], [output_name]))
    shape = ["batch", *model.outputs[0].shape[1:]]
    outputs = [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, shape)]
    return helper.make_model(
        helper.make_graph(graph.nodes, "network", inputs, outputs, graph.weights),
        producer_name="tripletkit",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )


class _GraphWriter:
    """The nodes and weights of a graph while it is written; a value is called by its name there."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        # id of a Keras tensor -> form -> name.
        self._names: dict[int, dict[str, str]] = {}
        # Ids must not be given to others while they are in use.
        self._kept: list[keras.KerasTensor] = []
        # id of a padded tensor -> (what was padded, top, left, bottom, right); written only where
        # a layer cannot pad by itself, because ONNX Runtime leaves its fast form for it.
        self._pads: dict[int, tuple[keras.KerasTensor, list[int]]] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = self._new_name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Write an array and return its name; floats become float32, other numbers int64."""
        values = np.asarray(values)
        values = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
        name = self._new_name("weights")
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def form(self, *tensors: keras.KerasTensor) -> str:
        """Return the form in which tensors of four axes are at hand, the first one's first."""
        if any(len(tensor.shape) != 4 for tensor in tensors):
            return "places"
        return next(iter(self._names.get(id(tensors[0]), {"maps": ""})))

    def get(self, tensor: keras.KerasTensor, form: str = "places") -> str:
        """Return the name of a tensor in a form, turned if it has only the other one."""
        if id(tensor) not in self._names:
            source, (top, left, bottom, right) = self._pads[id(tensor)]
            pads = self.constant([0, 0, top, left, 0, 0, bottom, right])
            self.put(tensor, self.add("Pad", self.get(source, "maps"), pads), "maps")
        names = self._names[id(tensor)]
        if form not in names:
            (name,) = names.values()
            names[form] = self.add("Transpose", name, perm=_TURNS[form])
        return names[form]

    def put(self, tensor: keras.KerasTensor, name: str, form: str = "places") -> None:
        self._names[id(tensor)] = {form: name}
        self._kept.append(tensor)

    def put_padded(
        self, tensor: keras.KerasTensor, source: keras.KerasTensor, pads: list[int]
    ) -> None:
        """Note that a tensor is another with zeros around: top, left, bottom, right."""
        self._pads[id(tensor)] = source, pads
        self._kept.append(tensor)

    def padding(self, tensor: keras.KerasTensor) -> tuple[keras.KerasTensor, list[int]]:
        """Return a tensor without the zeros around it, and how many these are."""
        return self._pads.get(id(tensor), (tensor, [0, 0, 0, 0]))

    def pass_on(self, source: keras.KerasTensor, tensor: keras.KerasTensor) -> None:
        self._names[id(tensor)] = self._names[id(source)]
        self._kept.append(tensor)

    def _new_name(self, kind: str) -> str:
        return f"{kind.lower()}_{len(self.nodes) + len(self.weights)}"


def _write_model(graph: _GraphWriter, model: keras.Model) -> None:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                _write_call(graph, node)


def _write_call(graph: _GraphWriter, node: Any) -> None:
    layer, inputs, outputs = node.operation, node.arguments.keras_tensors, node.outputs
    if isinstance(layer, keras.Sequential):
        layer = layer._functional
    if isinstance(layer, keras.Model):
        for inside, outside in zip(layer.inputs, inputs, strict=True):
            graph.pass_on(outside, inside)
        _write_model(graph, layer)
        for inside, outside in zip(layer.outputs, outputs, strict=True):
            graph.pass_on(inside, outside)
        return
    kind = type(layer).__name__
    if kind in _SAME:
        graph.pass_on(inputs[0], outputs[0])
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = layer.padding
        graph.put_padded(outputs[0], inputs[0], [top, left, bottom, right])
    elif kind in _WRITERS:
        graph.put(outputs[0], *_WRITERS[kind](graph, layer, inputs, node))
    else:
        raise NetworkFileError(
            f"layer {layer.name}: expected one of those that can be written as ONNX, got {kind}"
        )


# How a layer is written: from the graph, the layer, the Keras tensors it reads, and its node comes
# the name and the form of its output.
_Writer = Callable[[_GraphWriter, Any, Sequence[Any], Any], tuple[str, str]]


def _cropping(graph, layer, inputs, node):
    (top, _), (left, _) = layer.cropping
    height, width = node.outputs[0].shape[1:3]
    bounds = [[top, left], [top + height, left + width], [2, 3]]
    name = graph.add("Slice", graph.get(inputs[0], "maps"), *map(graph.constant, bounds))
    return name, "maps"


def _flip(graph, layer, inputs, _node):
    axis = layer.axis % len(inputs[0].shape)
    bounds = [[-1], [np.iinfo(np.int64).min], [axis], [-1]]
    return graph.add("Slice", graph.get(inputs[0]), *map(graph.constant, bounds)), "places"


def _reshape(graph, _layer, inputs, node):
    shape = list(node.outputs[0].shape[1:])
    if len(inputs[0].shape) == 2 and len(shape) == 3 and shape[:2] == [1, 1]:
        # Squeeze and excitation: a number a channel, for all places.
        target = graph.constant([0, shape[-1], 1, 1])
        return graph.add("Reshape", graph.get(inputs[0]), target), "maps"
    return graph.add("Reshape", graph.get(inputs[0]), graph.constant([0, *shape])), "places"


def _hard_sigmoid(graph: _GraphWriter, name: str) -> str:
    return graph.add("HardSigmoid", name, alpha=1 / 6, beta=0.5)


def _clip(graph: _GraphWriter, name: str, high: float) -> str:
    return graph.add("Clip", name, graph.constant(0.0), graph.constant(float(high)))


_ACTIVATIONS: dict[str, Callable[[_GraphWriter, str], str]] = {
    "linear": lambda graph, name: name,
    "relu": lambda graph, name: graph.add("Relu", name),
    "relu6": lambda graph, name: _clip(graph, name, 6.0),
    "sigmoid": lambda graph, name: graph.add("Sigmoid", name),
    "tanh": lambda graph, name: graph.add("Tanh", name),
    "silu": lambda graph, name: graph.add("Mul", name, graph.add("Sigmoid", name)),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda graph, name: graph.add("Mul", name, _hard_sigmoid(graph, name)),
    "gelu": lambda graph, name: graph.add("Gelu", name),
}


def _activate(graph: _GraphWriter, function: Callable[..., Any], name: str) -> str:
    kind = getattr(function, "__name__", repr(function))
    if kind not in _ACTIVATIONS:
        raise NetworkFileError(f"expected a known activation, got {kind}")
    return _ACTIVATIONS[kind](graph, name)


def _activation(graph, layer, inputs, _node):
    form = graph.form(inputs[0])
    return _activate(graph, layer.activation, graph.get(inputs[0], form)), form


def _relu(graph, layer, inputs, _node):
    if layer.negative_slope or layer.threshold:
        raise NetworkFileError(f"layer {layer.name}: expected ReLU without slope or threshold")
    form = graph.form(inputs[0])
    name = graph.get(inputs[0], form)
    if layer.max_value is None:
        return graph.add("Relu", name), form
    return _clip(graph, name, layer.max_value), form


def _convolution(graph, layer, inputs, _node):
    name = _convolve(graph, layer, inputs[0], _array(layer.kernel).transpose(3, 2, 0, 1))
    return _activate(graph, layer.activation, name), "maps"


def _depthwise(graph, layer, inputs, _node):
    kernel = _depthwise_kernel(layer.kernel)
    name = _convolve(graph, layer, inputs[0], kernel, group=inputs[0].shape[-1])
    return _activate(graph, layer.activation, name), "maps"


def _separable(graph, layer, inputs, _node):
    kernel = _depthwise_kernel(layer.depthwise_kernel)
    name = _convolve(graph, layer, inputs[0], kernel, group=inputs[0].shape[-1], with_bias=False)
    weights = [graph.constant(_array(layer.pointwise_kernel).transpose(3, 2, 0, 1))]
    if layer.use_bias:
        weights.append(graph.constant(_array(layer.bias)))
    return _activate(graph, layer.activation, graph.add("Conv", name, *weights)), "maps"


def _convolve(
    graph: _GraphWriter,
    layer: Any,
    tensor: Any,
    kernel: np.ndarray,
    *,
    group: int | None = None,
    with_bias: bool = True,
) -> str:
    if layer.data_format != "channels_last":
        raise NetworkFileError(f"layer {layer.name}: expected channels last, got channels first")
    weights = [graph.constant(kernel)]
    if with_bias and layer.use_bias:
        weights.append(graph.constant(_array(layer.bias)))
    padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"}
    if layer.padding == "valid":
        tensor, pads = graph.padding(tensor)
        padding = {"pads": pads}
    return graph.add(
        "Conv",
        graph.get(tensor, "maps"),
        *weights,
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        group=getattr(layer, "groups", 1) if group is None else group,
        **padding,
    )


def _depthwise_kernel(kernel: Any) -> np.ndarray:
    """Return `(channels * multiplier, 1, height, width)`."""
    height, width, channels, multiplier = kernel.shape
    return _array(kernel).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def _batch_norm(graph, layer, inputs, _node):
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    scale = 1.0 / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale *= _array(layer.gamma)
    shift = (_array(layer.beta) if layer.center else 0.0) - mean * scale
    if graph.form(inputs[0]) == "places":
        return _scale_and_shift(graph, inputs[0], scale, shift)
    # ONNX Runtime folds this one into the convolution before it.
    weights = map(graph.constant, (scale, shift, np.zeros_like(scale), np.ones_like(scale)))
    name = graph.get(inputs[0], "maps")
    return graph.add("BatchNormalization", name, *weights, epsilon=0.0), "maps"


def _scale_and_shift(graph: _GraphWriter, tensor: Any, scale: Any, shift: Any) -> tuple[str, str]:
    """Write x * scale + shift, both for all values or for each channel."""
    form = graph.form(tensor)
    name = graph.get(tensor, form)
    name = graph.add("Mul", name, graph.constant(_along(scale, form)))
    if np.any(shift):
        name = graph.add("Add", name, graph.constant(_along(shift, form)))
    return name, form


def _along(values: Any, form: str) -> np.ndarray:
    """Shape values of channels so that they fit to a form."""
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return values.reshape(())
    return values.reshape((-1, 1, 1)) if form == "maps" else values.reshape(-1)


def _normalization(graph, layer, inputs, _node):
    scale = 1.0 / np.maximum(np.sqrt(_array(layer.variance).astype(np.float64)), 1e-7)
    return _scale_and_shift(graph, inputs[0], scale, -_array(layer.mean) * scale)


def _layer_norm(graph, layer, inputs, _node):
    axis = layer.axis if isinstance(layer.axis, int) else next(iter(layer.axis))
    if axis not in (-1, len(inputs[0].shape) - 1) or getattr(layer, "rms_scaling", False):
        raise NetworkFileError(f"layer {layer.name}: expected LayerNormalization of the last axis")
    scale = _array(layer.gamma) if layer.scale else np.ones(inputs[0].shape[-1])
    weights = [scale] + [_array(layer.beta)] * layer.center
    arrays = map(graph.constant, weights)
    name = graph.get(inputs[0])
    return graph.add("LayerNormalization", name, *arrays, epsilon=layer.epsilon), "places"


def _unit_norm(graph, layer, inputs, _node):
    if len(inputs[0].shape) != 2:
        raise NetworkFileError(f"layer {layer.name}: expected UnitNormalization of vectors")
    name = graph.get(inputs[0])
    squares = graph.add("ReduceSumSquare", name, graph.constant([-1]), keepdims=1)
    # As in Keras, rows of zeros stay.
    length = graph.add("Sqrt", graph.add("Max", squares, graph.constant(1e-24)))
    return graph.add("Div", name, length), "places"


def _dense(graph, layer, inputs, _node):
    name = graph.add("MatMul", graph.get(inputs[0]), graph.constant(_array(layer.kernel)))
    if layer.use_bias:
        name = graph.add("Add", name, graph.constant(_array(layer.bias)))
    return _activate(graph, layer.activation, name), "places"


def _operator(kind: str) -> _Writer:
    """Return a writer of a sum or product of tensors, or of one and a number."""

    def write(graph, _layer, inputs, node):
        form = graph.form(*inputs)
        names = [graph.get(tensor, form) for tensor in inputs]
        if len(inputs) == 1:
            (number,) = (value for value in node.arguments.args if value is not inputs[0])
            names.append(graph.constant(_along(number, form)))
        name = names[0]
        for other in names[1:]:
            name = graph.add(kind, name, other)
        return name, form

    return write


def _average(graph, _layer, inputs, _node):
    form = graph.form(*inputs)
    return graph.add("Mean", *(graph.get(tensor, form) for tensor in inputs)), form


def _scaled_sum(graph, layer, inputs, _node):
    form = graph.form(*inputs)
    first, second = (graph.get(tensor, form) for tensor in inputs)
    scaled = graph.add("Mul", second, graph.constant(float(layer.scale)))
    return graph.add("Add", first, scaled), form


def _concatenate(graph, layer, inputs, _node):
    form, axis = graph.form(*inputs), layer.axis
    if form == "maps":
        axis = (0, 2, 3, 1)[axis]
    return graph.add("Concat", *(graph.get(tensor, form) for tensor in inputs), axis=axis), form


def _pool(kind: str) -> _Writer:
    def write(graph, layer, inputs, _node):
        tensor, padding = inputs[0], {"auto_pad": "SAME_UPPER"}
        if layer.padding == "valid":
            source, pads = graph.padding(tensor)
            # Among values of 0 and more, the largest is the same without the zeros.
            is_merged = kind == "MaxPool" and _is_rectified(source)
            padding = {"pads": pads if is_merged else [0, 0, 0, 0]}
            tensor = source if is_merged else tensor
        size, strides = list(layer.pool_size), list(layer.strides)
        name = graph.get(tensor, "maps")
        return graph.add(kind, name, kernel_shape=size, strides=strides, **padding), "maps"

    return write


def _is_rectified(tensor: Any) -> bool:
    layer = tensor._keras_history.operation
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.ReLU) or activation is keras.activations.relu


def _global_average(graph, layer, inputs, _node):
    name = graph.add("GlobalAveragePool", graph.get(inputs[0], "maps"))
    return (name, "maps") if layer.keepdims else (graph.add("Flatten", name), "places")


def _statistic_of_map(graph, layer, inputs, _node):
    if len(inputs[0].shape) != 4 or tuple(layer.axis) != (1, 2) or layer.keepdims:
        raise NetworkFileError(f"{layer.name}: expected statistics over height and width")

    def mean(name: str, keepdims: int = 0) -> str:
        return graph.add("ReduceMean", name, graph.constant([2, 3]), keepdims=keepdims)

    maps = graph.get(inputs[0], "maps")
    if type(layer).__name__ == "Mean":
        return mean(maps), "places"
    centred = graph.add("Sub", maps, mean(maps, keepdims=1))
    return graph.add("Sqrt", mean(graph.add("Mul", centred, centred))), "places"


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


_SAME = ("Dropout", "StochasticDepth", "Identity")
# Class of a layer, or of an operation of `keras.ops` -> what writes it.
_WRITERS: dict[str, _Writer] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "UnitNormalization": _unit_norm,
    "Rescaling": lambda graph, layer, inputs, _node: _scale_and_shift(
        graph, inputs[0], layer.scale, layer.offset
    ),
    "LayerScale": lambda graph, layer, inputs, _node: _scale_and_shift(
        graph, inputs[0], _array(layer.gamma), 0.0
    ),
    "CustomScaleLayer": _scaled_sum,
    "Dense": _dense,
    "Activation": _activation,
    "ReLU": _relu,
    "Add": _operator("Add"),
    "Multiply": _operator("Mul"),
    "Average": _average,
    "Concatenate": _concatenate,
    "MaxPooling2D": _pool("MaxPool"),
    "AveragePooling2D": _pool("AveragePool"),
    "GlobalAveragePooling2D": _global_average,
    "Cropping2D": _cropping,
    "Reshape": _reshape,
    "Flatten": lambda graph, _layer, inputs, _node: (
        graph.add("Flatten", graph.get(inputs[0])),
        "places",
    ),
    "Flip": _flip,
    "Mean": _statistic_of_map,
    "Std": _statistic_of_map,
}
