"""How layers that move, cut or pad values are written as ONNX nodes; see `onnx_layers`."""

from __future__ import annotations

import numpy as np

from tripletkit.features.onnx_nodes import GraphWriter


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
