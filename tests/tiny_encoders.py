"""Encoders as ONNX files, in the forms in which people export them: vision transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
N_FEATURES = 16


def build_transformer(
    side_px: int = SIDE_PX,
    patch_px: int = 8,
    width: int = N_FEATURES,
    n_heads: int = 2,
    n_blocks: int = 1,
    seed: int = 3,
) -> onnx.ModelProto:
    """Return a vision transformer as DINOv2's: `(n, 3, side, side)` -> `(n, tokens, width)`.

    Patches, a token for the class, places, blocks of attention and of two layers with GELU, each
    behind a normalisation and scaled, and a normalisation at the end. Its weights are random.
    """
    rng = np.random.default_rng(seed)
    nodes, weights = [], []

    def constant(values) -> str:
        values = np.asarray(values, np.float32 if np.asarray(values).dtype.kind == "f" else None)
        weights.append(numpy_helper.from_array(values, f"w{len(weights)}"))
        return weights[-1].name

    def add(kind, *inputs, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"n{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def random(*shape, scale=None) -> str:
        return constant(rng.standard_normal(shape) * (scale or shape[0] ** -0.5))

    def dense(x, n_in, n_out) -> str:
        return add("Add", add("MatMul", x, random(n_in, n_out)), random(n_out, scale=0.2))

    def norm(x) -> str:
        return add("LayerNormalization", x, random(width, scale=1.0), random(width, scale=0.2))

    def heads(x) -> str:
        parts = add("Reshape", x, constant([0, 0, n_heads, width // n_heads]))
        return add("Transpose", parts, perm=[0, 2, 1, 3])

    def attention(x) -> str:
        query, key, value = (heads(dense(x, width, width)) for _ in range(3))
        scores = add("MatMul", query, add("Transpose", key, perm=[0, 1, 3, 2]))
        scaled = add("Mul", scores, constant((width / n_heads) ** -0.5))
        mixed = add("MatMul", add("Softmax", scaled, axis=-1), value)
        mixed = add("Transpose", mixed, perm=[0, 2, 1, 3])
        return dense(add("Reshape", mixed, constant([0, 0, width])), width, width)

    def two_layers(x) -> str:
        hidden = dense(x, width, 4 * width)
        gate = add("Erf", add("Mul", hidden, constant(0.5**0.5)))
        gate = add("Mul", add("Add", gate, constant(1.0)), constant(0.5))
        return dense(add("Mul", hidden, gate), 4 * width, width)

    n_patches = (side_px // patch_px) ** 2
    kernel = random(width, 3, patch_px, patch_px, scale=(3 * patch_px**2) ** -0.5)
    maps = add("Conv", "pixel_values", kernel, strides=[patch_px, patch_px])
    flat = add("Reshape", maps, constant([0, width, -1]))
    x = add("Pad", add("Transpose", flat, perm=[0, 2, 1]), constant([0, 1, 0, 0, 0, 0]))
    # The token for the class is zeros until its place is added.
    x = add("Add", x, random(n_patches + 1, width, scale=0.5))
    for _ in range(n_blocks):
        for part in (attention, two_layers):
            x = add("Add", x, add("Mul", part(norm(x)), random(width, scale=0.5)))
    x = norm(x)
    nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    image = helper.make_tensor_value_info(
        "pixel_values", TensorProto.FLOAT, ["batch", 3, side_px, side_px]
    )
    tokens = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", n_patches + 1, width]
    )
    graph = helper.make_graph(nodes, "vit", [image], [tokens], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def build_convolutions() -> onnx.ModelProto:
    """Return a convolution and its average: `(n, 3, 32, 32)` -> `(n, 16, 16, 16)` and `(n, 16)`."""
    kernel = np.random.default_rng(4).standard_normal((N_FEATURES, 3, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        convolutions (float[batch, 3, {SIDE_PX}, {SIDE_PX}] pixel_values)
            => (float[batch, {N_FEATURES}, 16, 16] maps, float[batch, {N_FEATURES}] image_embeds) {{
            raw = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(pixel_values, kernel)
            maps = Relu(raw)
            image_embeds = ReduceMean<axes=[2, 3], keepdims=0>(maps)
        }}""")
    model.graph.initializer.append(numpy_helper.from_array(kernel, "kernel"))
    return model


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Return what a network gives for prepared images, `(n, side, side, 3)`, in a plain loop."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = images.transpose(0, 3, 1, 2).astype(np.float32)
    return np.concatenate([session.run(None, {"pixel_values": each[None]})[0] for each in images])


def export(
    model: onnx.ModelProto,
    path: Path,
    *,
    image_input: str = "pixel_values",
    channels_first: bool = True,
    half: bool = False,
    shape: tuple[int | str | None, ...] | None = None,
    external: bool = False,
) -> Path:
    """Write a network as a file whose input has this form; external weights are `weights.bin`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    own = made.graph.input.pop()
    for node in made.graph.node:
        node.input[:] = ["prepared" if name == own.name else name for name in node.input]
    side = own.type.tensor_type.shape.dim[2].dim_value
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    sizes = (3, side, side) if channels_first else (side, side, 3)
    made.graph.input.append(
        helper.make_tensor_value_info(image_input, kind, shape or ("batch", *sizes))
    )
    permutation = (0, 1, 2, 3) if channels_first else (0, 3, 1, 2)
    nodes = [
        helper.make_node("Cast", [image_input], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], ["prepared"], perm=permutation),
        *made.graph.node,
    ]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 200}
    onnx.save(made, path, **options if external else {})
    return path


def write_encoder(path: Path) -> list[str]:
    """Write convolutions and return the options of the command line that take them."""
    how = f"size={SIDE_PX},resample=bilinear,mean=0.5,std=0.5"
    return ["--backbone", str(export(build_convolutions(), path)), "--preprocess", how]
