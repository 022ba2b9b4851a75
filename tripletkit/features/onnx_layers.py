"""How each kind of Keras layer is written as ONNX nodes.

A writer takes the graph, the layer, the Keras tensors it reads and the one it makes, and the
arguments of the call. It says in which form it wants what it reads; see `GraphWriter`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tripletkit.errors import ExportError
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


def write_zero_padding(graph, layer, inputs, output, _arguments) -> None:
    (top, bottom), (left, right) = layer.padding
    graph.put_padded(output, inputs[0], [top, left, bottom, right])


def write_cropping(graph, layer, inputs, output, _arguments) -> None:
    (top, _), (left, _) = layer.cropping
    height, width = output.shape[1:3]
    name = cut_map(
        graph, graph.get(inputs[0], "maps"), [top, left], [top + height, left + width], [2, 3]
    )
    graph.put(output, name, "maps")


def cut_map(
    graph: GraphWriter,
    name: str,
    starts: list[int],
    ends: list[int],
    axes: list[int],
    steps: list[int] | None = None,
) -> str:
    arrays = (starts, ends, axes, steps or [1] * len(axes))
    return graph.add(
        "Slice", name, *(graph.constant(np.array(array, np.int64)) for array in arrays)
    )


def write_flip(graph, layer, inputs, output, _arguments) -> None:
    rank = len(inputs[0].shape)
    axis = layer.axis % rank
    form = "places" if rank == 4 else "plain"
    lowest = np.iinfo(np.int64).min
    name = cut_map(graph, graph.get(inputs[0], form), [-1], [lowest], [axis], [-1])
    graph.put(output, name, form)


def write_reshape(graph, layer, inputs, output, _arguments) -> None:
    shape = list(output.shape[1:])
    if len(inputs[0].shape) == 2 and len(shape) == 3 and shape[:2] == [1, 1]:
        # Squeeze and excitation: a number a channel, for all places.
        target = graph.constant(np.array([0, shape[-1], 1, 1], np.int64))
        graph.put(output, graph.add("Reshape", graph.get(inputs[0], "plain"), target), "maps")
        return
    form = "places" if len(inputs[0].shape) == 4 else "plain"
    target = graph.constant(np.array([0, *shape], np.int64))
    name = graph.add("Reshape", graph.get(inputs[0], form), target)
    graph.put(output, name, "places" if len(shape) == 3 else "plain")


def write_flatten(graph, _layer, inputs, output, _arguments) -> None:
    form = "places" if len(inputs[0].shape) == 4 else "plain"
    graph.put(output, graph.add("Flatten", graph.get(inputs[0], form)), "plain")


def write_padding(graph, layer, inputs, output, _arguments) -> None:
    before, after = layer.padding
    pads = graph.constant(np.array([0, before, 0, 0, after, 0], np.int64))
    graph.put(output, graph.add("Pad", graph.get(inputs[0], "plain"), pads), "plain")


def write_transpose(graph, layer, inputs, output, _arguments) -> None:
    rank = len(inputs[0].shape)
    axes = layer.axes or tuple(reversed(range(rank)))
    form = "places" if rank == 4 else "plain"
    graph.put(output, graph.add("Transpose", graph.get(inputs[0], form), perm=list(axes)), form)


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


# A keras.KerasTensor; Keras brings no types.
Tensor = Any
LayerWriter = Callable[[GraphWriter, Any, Sequence[Tensor], Tensor, Any], None]


def _convolution(graph, layer, inputs, output, _arguments) -> None:
    kernel = _array(layer.kernel)
    name = _convolve(graph, layer, inputs[0], kernel.transpose(3, 2, 0, 1))
    graph.put(output, activate(graph, layer.activation, name), "maps")


def _depthwise(graph, layer, inputs, output, _arguments) -> None:
    kernel = _depthwise_kernel(layer.kernel)
    name = _convolve(graph, layer, inputs[0], kernel, group=inputs[0].shape[-1])
    graph.put(output, activate(graph, layer.activation, name), "maps")


def _separable(graph, layer, inputs, output, _arguments) -> None:
    kernel = _depthwise_kernel(layer.depthwise_kernel)
    name = _convolve(graph, layer, inputs[0], kernel, group=inputs[0].shape[-1], with_bias=False)
    kernel = _array(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    weights = [graph.constant(kernel)]
    if layer.use_bias:
        weights.append(graph.constant(_array(layer.bias)))
    name = graph.add("Conv", name, *weights)
    graph.put(output, activate(graph, layer.activation, name), "maps")


def _convolve(
    graph: GraphWriter,
    layer: Any,
    tensor: Tensor,
    kernel: np.ndarray,
    *,
    group: int | None = None,
    with_bias: bool = True,
) -> str:
    if layer.data_format != "channels_last":
        raise ExportError(f"layer {layer.name}: expected channels last, got channels first")
    weights = [graph.constant(kernel)]
    if with_bias and layer.use_bias:
        weights.append(graph.constant(_array(layer.bias)))
    padding = {"auto_pad": "SAME_UPPER"}
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


def _batch_norm(graph, layer, inputs, output, _arguments) -> None:
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    scale = 1.0 / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale *= _array(layer.gamma)
    shift = (_array(layer.beta) if layer.center else 0.0) - mean * scale
    if len(inputs[0].shape) == 4 and graph.form(inputs[0]) == "maps":
        # ONNX Runtime folds this one into the convolution before it.
        values = scale, shift, np.zeros_like(scale), np.ones_like(scale)
        name = graph.get(inputs[0], "maps")
        weights = [graph.constant(value) for value in values]
        graph.put(output, graph.add("BatchNormalization", name, *weights, epsilon=0.0), "maps")
        return
    _scale_and_shift(graph, inputs[0], output, scale, shift)


def _scale_and_shift(
    graph: GraphWriter, tensor: Tensor, output: Tensor, scale: np.ndarray, shift: np.ndarray
) -> None:
    """Write x * scale + shift, both for all values or for each channel."""
    form = graph.form(tensor)
    name = graph.get(tensor, form)
    name = graph.add("Mul", name, graph.constant(_along(scale, form)))
    if np.any(shift):
        name = graph.add("Add", name, graph.constant(_along(shift, form)))
    graph.put(output, name, form)


def _along(values: np.ndarray | float, form: str) -> np.ndarray:
    """Shape values of channels so that they fit to a form."""
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return values.reshape(())
    return values.reshape((-1, 1, 1)) if form == "maps" else values.reshape(-1)


def _layer_norm(graph, layer, inputs, output, _arguments) -> None:
    rank = len(inputs[0].shape)
    axis = layer.axis if isinstance(layer.axis, int) else next(iter(layer.axis))
    if axis not in (-1, rank - 1) or getattr(layer, "rms_scaling", False):
        raise ExportError(f"layer {layer.name}: expected LayerNormalization of the last axis")
    form = "places" if rank == 4 else "plain"
    n_channels = inputs[0].shape[-1]
    scale = _array(layer.gamma) if layer.scale else np.ones(n_channels)
    weights = [graph.constant(scale)]
    if layer.center:
        weights.append(graph.constant(_array(layer.beta)))
    name = graph.add(
        "LayerNormalization", graph.get(inputs[0], form), *weights, epsilon=layer.epsilon
    )
    graph.put(output, name, form)


def _dense(graph, layer, inputs, output, _arguments) -> None:
    form = "places" if len(inputs[0].shape) == 4 else "plain"
    name = graph.get(inputs[0], form)
    name = graph.add("MatMul", name, graph.constant(_array(layer.kernel)))
    if layer.use_bias:
        name = graph.add("Add", name, graph.constant(_array(layer.bias)))
    graph.put(output, activate(graph, layer.activation, name), form)


def _activation(graph, layer, inputs, output, _arguments) -> None:
    form = graph.form(inputs[0])
    is_softmax = getattr(layer.activation, "__name__", "") == "softmax"
    form = "places" if is_softmax and form == "maps" else form
    graph.put(output, activate(graph, layer.activation, graph.get(inputs[0], form)), form)


def _relu(graph, layer, inputs, output, _arguments) -> None:
    if layer.negative_slope or layer.threshold:
        raise ExportError(f"layer {layer.name}: expected ReLU without slope or threshold")
    form = graph.form(inputs[0])
    name = graph.get(inputs[0], form)
    if layer.max_value is None:
        name = graph.add("Relu", name)
    else:
        name = clip(graph, name, 0.0, float(layer.max_value))
    graph.put(output, name, form)


def _same(graph, _layer, inputs, output, _arguments) -> None:
    graph.pass_on(inputs[0], output)


def _fold(kind: str) -> LayerWriter:
    """Return a writer of a layer that takes any number of tensors, by a node of two."""

    def write(graph, _layer, inputs, output, _arguments) -> None:
        form = graph.form(*inputs)
        name = graph.get(inputs[0], form)
        for other in inputs[1:]:
            name = graph.add(kind, name, graph.get(other, form))
        graph.put(output, name, form)

    return write


def _average(graph, _layer, inputs, output, _arguments) -> None:
    form = graph.form(*inputs)
    name = graph.add("Mean", *(graph.get(tensor, form) for tensor in inputs))
    graph.put(output, name, form)


def _operator(kind: str) -> LayerWriter:
    """Return a writer of a sum or product of tensors, or of one and a number."""

    def write(graph, layer, inputs, output, arguments) -> None:
        if len(inputs) > 1:
            _fold(kind)(graph, layer, inputs, output, arguments)
            return
        (number,) = (value for value in arguments.args if value is not inputs[0])
        form = graph.form(inputs[0])
        value = graph.constant(_along(np.asarray(number), form))
        graph.put(output, graph.add(kind, graph.get(inputs[0], form), value), form)

    return write


def _concatenate(graph, layer, inputs, output, _arguments) -> None:
    form, axis = graph.form(*inputs), layer.axis
    if form == "maps":
        axis = (0, 2, 3, 1)[axis]
    name = graph.add("Concat", *(graph.get(tensor, form) for tensor in inputs), axis=axis)
    graph.put(output, name, form)


def _pool(kind: str) -> LayerWriter:
    def write(graph, layer, inputs, output, _arguments) -> None:
        tensor = inputs[0]
        padding = {"auto_pad": "SAME_UPPER"}
        if layer.padding == "valid":
            source, pads = graph.padding(tensor)
            # Among values of 0 and more, the largest is the same without the zeros.
            is_merged = kind == "MaxPool" and _is_rectified(source)
            padding = {"pads": pads if is_merged else [0, 0, 0, 0]}
            tensor = source if is_merged else tensor
        name = graph.add(
            kind,
            graph.get(tensor, "maps"),
            kernel_shape=list(layer.pool_size),
            strides=list(layer.strides),
            **padding,
        )
        graph.put(output, name, "maps")

    return write


def _is_rectified(tensor: Tensor) -> bool:
    layer = tensor._keras_history.operation
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.ReLU) or activation is keras.activations.relu


def _global_pool(kind: str) -> LayerWriter:
    def write(graph, layer, inputs, output, _arguments) -> None:
        name = graph.add(kind, graph.get(inputs[0], "maps"))
        if layer.keepdims:
            graph.put(output, name, "maps")
        else:
            graph.put(output, graph.add("Flatten", name), "plain")

    return write


def _normalization(graph, layer, inputs, output, _arguments) -> None:
    if layer.invert:
        raise ExportError(f"layer {layer.name}: expected Normalization that is not inverted")
    deviation = np.maximum(np.sqrt(_array(layer.variance).astype(np.float64)), 1e-7)
    scale = 1.0 / deviation
    _scale_and_shift(graph, inputs[0], output, scale, -_array(layer.mean) * scale)


def _rescaling(graph, layer, inputs, output, _arguments) -> None:
    scale, shift = np.asarray(layer.scale, float), np.asarray(layer.offset, float)
    _scale_and_shift(graph, inputs[0], output, scale, shift)


def _unit_norm(graph, layer, inputs, output, _arguments) -> None:
    if len(inputs[0].shape) != 2:
        raise ExportError(f"layer {layer.name}: expected UnitNormalization of vectors")
    name = graph.get(inputs[0], "plain")
    axes = graph.constant(np.array([-1], np.int64))
    squares = graph.add("ReduceSumSquare", name, axes, keepdims=1)
    # As in Keras, rows of zeros stay.
    floor = graph.constant(np.array(1e-24, np.float32))
    length = graph.add("Sqrt", graph.add("Max", squares, floor))
    graph.put(output, graph.add("Div", name, length), "plain")


def _layer_scale(graph, layer, inputs, output, _arguments) -> None:
    gamma = _array(layer.gamma)
    _scale_and_shift(graph, inputs[0], output, gamma, np.zeros(()))


def _scaled_sum(graph, layer, inputs, output, _arguments) -> None:
    form = graph.form(*inputs)
    first, second = (graph.get(tensor, form) for tensor in inputs)
    scale = graph.constant(np.asarray(layer.scale, float))
    graph.put(output, graph.add("Add", first, graph.add("Mul", second, scale)), form)


def _mean_of_map(graph, layer, inputs, output, _arguments) -> None:
    _check_map_axes(layer, inputs)
    graph.put(output, _reduce(graph, graph.get(inputs[0], "maps")), "plain")


def _deviation_of_map(graph, layer, inputs, output, _arguments) -> None:
    _check_map_axes(layer, inputs)
    maps = graph.get(inputs[0], "maps")
    centred = graph.add("Sub", maps, _reduce(graph, maps, keepdims=1))
    variance = _reduce(graph, graph.add("Mul", centred, centred))
    graph.put(output, graph.add("Sqrt", variance), "plain")


def _reduce(graph: GraphWriter, name: str, keepdims: int = 0) -> str:
    axes = graph.constant(np.array([2, 3], np.int64))
    return graph.add("ReduceMean", name, axes, keepdims=keepdims)


def _check_map_axes(layer: Any, inputs: Sequence[Tensor]) -> None:
    if len(inputs[0].shape) != 4 or tuple(layer.axis) != (1, 2) or layer.keepdims:
        raise ExportError(f"{layer.name}: expected statistics over height and width")


def _softmax(graph, layer, inputs, output, _arguments) -> None:
    form = "places" if len(inputs[0].shape) == 4 else "plain"
    name = graph.add("Softmax", graph.get(inputs[0], form), axis=layer.axis)
    graph.put(output, name, form)


def _matrix_product(graph, _layer, inputs, output, _arguments) -> None:
    forms = ["places" if len(tensor.shape) == 4 else "plain" for tensor in (*inputs, output)]
    names = map(graph.get, inputs, forms)
    graph.put(output, graph.add("MatMul", *names), forms[-1])


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


# Class of a layer, or of an operation of `keras.ops` -> what writes it.
WRITERS: dict[str, LayerWriter] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "UnitNormalization": _unit_norm,
    "Rescaling": _rescaling,
    "LayerScale": _layer_scale,
    "CustomScaleLayer": _scaled_sum,
    "Dense": _dense,
    "Activation": _activation,
    "ReLU": _relu,
    "Dropout": _same,
    "SpatialDropout2D": _same,
    "StochasticDepth": _same,
    "Identity": _same,
    "Add": _operator("Add"),
    "Multiply": _operator("Mul"),
    "Average": _average,
    "Concatenate": _concatenate,
    "MaxPooling2D": _pool("MaxPool"),
    "AveragePooling2D": _pool("AveragePool"),
    "GlobalAveragePooling2D": _global_pool("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pool("GlobalMaxPool"),
    "ZeroPadding2D": write_zero_padding,
    "Cropping2D": write_cropping,
    "Reshape": write_reshape,
    "Flatten": write_flatten,
    "Flip": write_flip,
    "ZeroPadding1D": write_padding,
    "Transpose": write_transpose,
    "Softmax": _softmax,
    "Matmul": _matrix_product,
    "Mean": _mean_of_map,
    "Std": _deviation_of_map,
}
