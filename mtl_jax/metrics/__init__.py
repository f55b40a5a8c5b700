"""Metrics as mergeable pytrees, computed inside the compiled step: batches add up to the metric of the whole split.

A metric of a split is ``compute(merge(states))``, where `states` are those of equal padded batches, stacked by
`jax.lax.map`. Rows without a label count for nothing, whatever they hold. Several labels or target dimensions are
averaged over those for which the metric is defined (macro); a metric that is defined for none is nan. A nan output of a
labelled row counts as wrong in metrics that count, and makes the others nan. Counts are int32. With weights of rows, a
row of weight 2 counts as two, as scikit-learn's ``sample_weight``, and counts are float32 sums.
"""

from collections.abc import Callable

from mtl_jax.metrics.angles import angle_within, mean_angle, median_angle
from mtl_jax.metrics.base import Metric
from mtl_jax.metrics.boxes import box_iou
from mtl_jax.metrics.classification import accuracy, macro_f1, mean_iou, top_k
from mtl_jax.metrics.curves import auroc, average_precision
from mtl_jax.metrics.quantiles import coverage, pinball
from mtl_jax.metrics.ranking import ndcg
from mtl_jax.metrics.regression import abs_rel, mae, r2, rmse
from mtl_jax.metrics.spans import span_f1

NAMES: dict[str, Callable[..., Metric]] = {
    f.__name__: f
    for f in (
        accuracy, top_k, macro_f1, mean_iou, span_f1, auroc, average_precision, ndcg, mae, rmse, abs_rel, r2,
        pinball, coverage, box_iou, mean_angle, median_angle, angle_within,
    )
}  # fmt: skip

__all__ = ["NAMES", "Metric", *NAMES]
