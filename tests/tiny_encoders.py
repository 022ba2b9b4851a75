"""Small encoders as ONNX files, in the forms in which people export them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper

from tripletkit.features.onnx_writer import make_onnx_model

SIDE_PX = 32
N_FEATURES = 12
N_TOKENS = 17


def build_transformer() -> keras.Model:
    """A vision transformer of one block: `(batch, 17, 12)` tokens, the first for the class."""
    keras.utils.set_random_seed(3)
    layers, ops = keras.layers, keras.ops
    image = keras.Input((SIDE_PX, SIDE_PX, 3))
    patches = layers.Conv2D(N_FEATURES, 8, strides=8)(image)
    x = layers.ZeroPadding1D((1, 0))(layers.Reshape((16, N_FEATURES))(patches))
    normed = layers.LayerNormalization()(layers.Dense(N_FEATURES)(x))
    query, key, value = (layers.Dense(N_FEATURES)(normed) for _ in range(3))
    weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    x = layers.Add()([x, ops.matmul(weights, value)])
    hidden = layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x))
    model = keras.Model(image, layers.Add()([x, layers.Dense(N_FEATURES)(hidden)]))
    rng = np.random.default_rng(3)
    # Biases too, so that the token of the class, which is zeros at first, is something.
    model.set_weights([w + rng.normal(0, 0.2, w.shape) for w in model.get_weights()])
    return model


def build_convolutions() -> keras.Model:
    """A convolution and its average: `(batch, 12)`."""
    keras.utils.set_random_seed(4)
    image = keras.Input((SIDE_PX, SIDE_PX, 3))
    x = keras.layers.Conv2D(N_FEATURES, 3, strides=2, activation="relu")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def export(
    model: keras.Model,
    path: Path,
    *,
    output: str = "last_hidden_state",
    image_input: str = "pixel_values",
    channels_first: bool = True,
    half: bool = False,
    shape: tuple[int | str, ...] | None = None,
    external: bool = False,
) -> Path:
    """Write a Keras model as an ONNX file.

    Args:
        output, image_input: what these are called.
        channels_first: images have their channels first, as PyTorch has them.
        half: the input is float16.
        shape: of the input; defaults to an open batch and the model's own sizes.
        external: keep the weights in a file of their own, `weights.bin`.
    """
    made = make_onnx_model(model, output)
    (own,) = made.graph.input
    del made.graph.input[:]
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    sizes = (3, SIDE_PX, SIDE_PX) if channels_first else (SIDE_PX, SIDE_PX, 3)
    made.graph.input.append(
        helper.make_tensor_value_info(image_input, kind, shape or ("batch", *sizes))
    )
    permutation = (0, 2, 3, 1) if channels_first else (0, 1, 2, 3)
    first = [
        helper.make_node("Cast", [image_input], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], [own.name], perm=permutation),
    ]
    nodes = [*first, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 200}
    onnx.save(made, path, **options if external else {})
    return path


def add_outputs(path: Path, **ranks: int) -> None:
    """Give a file further outputs: the same values, of rank 2 the first token's."""
    made = onnx.load(path)
    (own,) = made.graph.output
    for name, rank in ranks.items():
        if rank == 2:
            index = helper.make_tensor(f"{name}_index", TensorProto.INT64, [], [0])
            made.graph.initializer.append(index)
            node = helper.make_node("Gather", [own.name, f"{name}_index"], [name], axis=1)
        else:
            node = helper.make_node("Identity", [own.name], [name])
        made.graph.node.append(node)
        made.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        )
    onnx.save(made, path)
