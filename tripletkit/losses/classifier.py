"""A classifier on embeddings, for losses by cross-entropy."""

from __future__ import annotations

from typing import Any

from tripletkit import defaults
from tripletkit.features.keras_backend import KerasTensor, keras, ops


@keras.saving.register_keras_serializable("tripletkit")
class CosineClassifier(keras.layers.Layer):
    """The cosine between an embedding and a vector for each class, times a scale that is learned.

    Between vectors of length 1 a plain product is -1 to 1, which the softmax over many classes
    cannot make sure of anything by; the scale can grow.

    Args:
        n_classes: how many.
    Reference:
        Wang, Xiang, Cheng, Yuille. NormFace. ACM Multimedia 2017. arXiv:1704.06369.
    """

    def __init__(self, n_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_classes = n_classes

    def build(self, embeddings_shape: tuple[int | None, int]) -> None:
        self.kernel = self.add_weight(
            (embeddings_shape[-1], self.n_classes), "he_uniform", name="kernel"
        )
        self.scale = self.add_weight(
            (), keras.initializers.Constant(defaults.LOGIT_SCALE), name="scale"
        )

    def call(self, embeddings: KerasTensor) -> KerasTensor:
        """Return logits: `(n, n_dims)` -> `(n, n_classes)`."""
        return self.scale * ops.matmul(
            ops.normalize(embeddings, axis=-1), ops.normalize(self.kernel, axis=0)
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n_classes": self.n_classes}
