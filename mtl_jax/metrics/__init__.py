"""Metrics as mergeable pytrees, computed inside the compiled step: batches add up to the metric of the whole split.

A metric of a split is ``compute(merge(states))``, where `states` are those of equal padded batches, stacked by
`jax.lax.map`. Rows without a label count for nothing, whatever they hold. Several labels or target dimensions are
averaged over those for which the metric is defined (macro); a metric that is defined for none is nan. A nan output of a
labelled row counts as wrong in metrics that count, and makes the others nan. Counts are int32. With weights of rows, a
row of weight 2 counts as two, as scikit-learn's ``sample_weight``, and counts are float32 sums.
"""

from collections.abc import Callable

from mtl_jax import parts
from mtl_jax.metrics.angles import angle_within as angle_within
from mtl_jax.metrics.angles import mean_angle as mean_angle
from mtl_jax.metrics.angles import median_angle as median_angle
from mtl_jax.metrics.base import Metric
from mtl_jax.metrics.boxes import box_iou as box_iou
from mtl_jax.metrics.classification import accuracy as accuracy
from mtl_jax.metrics.classification import macro_f1 as macro_f1
from mtl_jax.metrics.classification import mean_iou as mean_iou
from mtl_jax.metrics.classification import top_k as top_k
from mtl_jax.metrics.curves import auroc as auroc
from mtl_jax.metrics.curves import average_precision as average_precision
from mtl_jax.metrics.quantiles import coverage as coverage
from mtl_jax.metrics.quantiles import pinball as pinball
from mtl_jax.metrics.ranking import ndcg as ndcg
from mtl_jax.metrics.regression import abs_rel as abs_rel
from mtl_jax.metrics.regression import mae as mae
from mtl_jax.metrics.regression import r2 as r2
from mtl_jax.metrics.regression import rmse as rmse
from mtl_jax.metrics.spans import span_f1 as span_f1

NAMES: dict[str, Callable[..., Metric]] = parts.returning(Metric, globals())

__all__ = ["NAMES", "Metric", *NAMES]
