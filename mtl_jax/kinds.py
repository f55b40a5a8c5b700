"""What a kind of task means: one entry of `KINDS` holds all that the library knows of it.

| kind           | target                              | outputs                     | prediction                 |
|----------------|-------------------------------------|-----------------------------|----------------------------|
| classification | int32 [N], 0..size-1                | logits [N, size]            | probabilities [N, size]    |
| binary         | float32 [N], 0 or 1                 | logits [N]                  | probabilities [N]          |
| multilabel     | float32 [N, size], 0 or 1           | logits [N, size]            | probabilities [N, size]    |
| regression     | float32 [N], or [N, size]           | standardised, as the target | in the target's units      |
| quantile       | float32 [N]                         | standardised [N, quantiles] | in its units, ascending    |
| tagging        | int32 [N, T], 0..size-1             | logits [N, T, size]         | probabilities [N, T, size] |
| ranking        | float32 [N, L], grades >= 0         | scores [N, L]               | scores [N, L]              |
| segmentation   | int32 [N, H, W], 0..size-1          | logits [N, H, W, size]      | probabilities, as outputs  |
| depth          | float32 [N, H, W]                   | standardised [N, H, W]      | in the target's units      |
| normals        | float32 [N, H, W, 3], of any length | vectors [N, H, W, 3]        | unit vectors               |
| box            | float32 [N, 4], x0 <= x1, y0 <= y1  | standardised [N, 4]         | x0, y0, x1, y1 in its units |

| kind           | loss                 | metrics                                    | head   | best constant          |
|----------------|----------------------|--------------------------------------------|--------|------------------------|
| classification | cross_entropy        | accuracy, macro_f1                         | vector | frequencies of classes |
| binary         | binary_cross_entropy | auroc, average_precision, accuracy         | vector | frequency of 1         |
| multilabel     | binary_cross_entropy | auroc, average_precision                   | vector | frequencies of labels  |
| regression     | mse                  | mae, rmse, r2                              | vector | mean                   |
| quantile       | pinball              | pinball, coverage                          | vector | quantiles              |
| tagging        | cross_entropy        | accuracy, macro_f1; IOB2: span_f1 too      | token  | frequencies of tags    |
| ranking        | listwise_softmax     | ndcg                                       | token  | one score for all      |
| segmentation   | cross_entropy        | mean_iou, accuracy                         | dense  | frequencies of classes |
| depth          | mae                  | mae, rmse, abs_rel                         | dense  | median                 |
| normals        | cosine               | mean_angle, median_angle, angle_within     | dense  | mean direction         |
| box            | box                  | box_iou                                    | vector | mean                   |

A mask says which labels are there; its shape is a prefix of the target's: [N] of rows, [N, T] of tokens or items,
[N, H, W] of pixels. What a missing label holds, even nan, has no effect.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import losses
from mtl_jax.metrics.spans import is_iob2

QUANTILES = "quantiles"


class Kind(NamedTuple):
    """Defaults of a kind of task, and what its targets and outputs are.

    Attributes:
      loss, metrics, head: by name.
      labels: "classes" (0..size-1), "zero_one", or "numbers".
      size: whether `Task.size` is "needed", "optional" or "none"; the number that it is; or "quantiles", for the number
        of `Task.quantiles`, which the kind has.
      axes: of a row's target: "size" (absent without size), a number, or the name of an axis of any length.
      whole: whether the last axis belongs to one element, which has a label as a whole or not at all.
      two: whether a label of 0 or 1 is one of two classes.
      lists: whether an element is a list: a row's target has an axis of items, each with a score of its own, a loss
        takes the mask, and a list without an item of grade above 0 does not count.
      scaled: how targets are standardised: "each" dimension, "all" alike, "boxes" (x alike, y alike); None: not.
      constant: the best constant: the "mean" (for classes and 0 or 1, frequencies), a "quantile" of all elements alike
        (the median, or `Task.quantiles`), or "zero".
      more_metrics: (`Task.classes`) -> names of metrics that go before, where the classes allow them.
      ordered: (outputs in the target's units) -> what metrics and users read, such as corners in their order.
      shown: (that) -> what users read; None: the same, or the probabilities.
      wrong: (targets, finite) -> (where a label is none of its kind, what is wrong with it), besides what `labels` say.
      read_by_others: whether other tasks may read its soft outputs, or labels in their place.
      calibrated: whether it has temperatures, intervals or sets (`uncertainty`).
      against_trees: the metric in which it is compared with trees (`analysis.trees`): "rrmse", "auroc" or "accuracy";
        None: it is not.
      several: the kind of several such labels a row, to point to.
    """

    loss: str
    metrics: tuple[str, ...]
    head: str
    labels: str
    size: str | int = "none"
    axes: tuple[str | int, ...] = ()
    whole: bool = False
    two: bool = False
    lists: bool = False
    scaled: str | None = None
    constant: str = "mean"
    more_metrics: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None
    ordered: Callable[[Array], Array] | None = None
    shown: Callable[[Array], Array] | None = None
    wrong: Callable[[np.ndarray], tuple[np.ndarray, str]] | None = None
    read_by_others: bool = False
    calibrated: bool = False
    against_trees: str | None = None
    several: str | None = None

    @property
    def columns(self) -> bool:
        """Whether a row has `Task.size` labels of its own kind, one a column, where it has a size."""
        return self.axes == ("size",)


def dtype_of(kind: Kind, given: np.dtype | type = np.float32) -> type:
    """How labels are stored; numbers as given, float32 or float64."""
    numbers = np.float32 if given in (np.float16, np.float32) else np.float64
    return {"classes": np.int32, "zero_one": np.float32}.get(kind.labels, numbers)


def one_class_a_row(name: str) -> bool:
    """Whether this is a kind whose label is one class of the row."""
    kind = KINDS.get(name)
    return kind is not None and not kind.axes and (kind.two or kind.labels == "classes")


def ascending(outputs: Float[Array, "... quantile"]) -> Float[Array, "... quantile"]:
    """Quantiles that never cross.

    Sorting does not increase the pinball loss (Chernozhukov, Fernandez-Val and Galichon, "Quantile and probability
    curves without crossing", 2010).
    """
    return jnp.sort(outputs, axis=-1)


def of_length_one(vectors: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Directions as unit vectors."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), jnp.finfo(vectors.dtype).tiny)


def no_boxes(target: np.ndarray) -> tuple[np.ndarray, str]:
    """Boxes whose corners are not in order."""
    bad = (target[..., :2] > target[..., 2:]).any(-1, keepdims=True)
    return np.broadcast_to(bad, target.shape).copy(), "no box x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"


def no_directions(target: np.ndarray) -> tuple[np.ndarray, str]:
    """Vectors of length 0."""
    return np.broadcast_to((target == 0).all(-1, keepdims=True), target.shape).copy(), "no direction"


def no_grades(target: np.ndarray) -> tuple[np.ndarray, str]:
    """Grades below 0."""
    return target < 0, "below 0; grades start at 0"


def spans(classes: tuple[str, ...]) -> tuple[str, ...]:
    """F1 of whole spans, where tags are IOB2."""
    return ("span_f1",) if is_iob2(classes) else ()


_ANGLES = ("mean_angle", "median_angle", "angle_within(11.25)", "angle_within(22.5)", "angle_within(30)")
_CHANCES = ("auroc", "average_precision")
KINDS = {
    "classification": Kind(
        "cross_entropy", ("accuracy", "macro_f1"), "vector", "classes", "needed",
        read_by_others=True, calibrated=True, against_trees="accuracy",
    ),
    "binary": Kind(
        "binary_cross_entropy", (*_CHANCES, "accuracy"), "vector", "zero_one", two=True,
        read_by_others=True, calibrated=True, against_trees="auroc", several="multilabel",
    ),
    "multilabel": Kind(
        "binary_cross_entropy", _CHANCES, "vector", "zero_one", "needed", ("size",),
        read_by_others=True, calibrated=True, against_trees="auroc",
    ),
    "regression": Kind(
        "mse", ("mae", "rmse", "r2"), "vector", "numbers", "optional", ("size",), scaled="each",
        read_by_others=True, calibrated=True, against_trees="rrmse",
    ),
    "quantile": Kind(
        "pinball", ("pinball", "coverage"), "vector", "numbers", QUANTILES, scaled="all", constant="quantile",
        ordered=ascending, calibrated=True,
    ),
    "tagging": Kind(
        "cross_entropy", ("accuracy", "macro_f1"), "token", "classes", "needed", ("tokens",), more_metrics=spans,
        read_by_others=True,
    ),
    "ranking": Kind(
        "listwise_softmax", ("ndcg",), "token", "numbers", "optional", ("items",), lists=True, constant="zero",
        wrong=no_grades,
    ),
    "segmentation": Kind(
        "cross_entropy", ("mean_iou", "accuracy"), "dense", "classes", "needed", ("high", "wide"),
        read_by_others=True,
    ),
    "depth": Kind(
        "mae", ("mae", "rmse", "abs_rel"), "dense", "numbers", "none", ("high", "wide"), scaled="all",
        constant="quantile", read_by_others=True,
    ),
    "normals": Kind(
        "cosine", _ANGLES, "dense", "numbers", 3, ("high", "wide", 3), whole=True, shown=of_length_one,
        wrong=no_directions,
    ),
    "box": Kind(
        "box", ("box_iou",), "vector", "numbers", 4, (4,), whole=True, scaled="boxes", ordered=losses.boxes.ordered,
        wrong=no_boxes, read_by_others=True,
    ),
}  # fmt: skip
