"""An encoder of one convolution as an ONNX file, written without Keras, quick to make and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
N_FEATURES = 16


def write_encoder(path: Path) -> list[str]:
    """Write it and return the options of the command line that take it."""
    rng = np.random.default_rng(7)
    weights = rng.normal(0, 0.3, (N_FEATURES, 3, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["pixel_values", "weights"], ["map"], strides=[3, 3]),
        helper.make_node("Relu", ["map"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["image_embeds"]),
    ]
    shape = ["batch", 3, SIDE_PX, SIDE_PX]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", N_FEATURES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return [
        "--backbone",
        str(path),
        "--preprocess",
        f"size={SIDE_PX},resample=bilinear,mean=0.5,std=0.5",
    ]
