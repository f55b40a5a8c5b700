"""The encoder for a table, chosen on five of thirteen sets of real data beside ridge, boosting and forests.

``scripts/evidence/tables.txt`` has every score.
"""

from typing import Any

import numpy as np

from mtl_jax.batch import PerTask, num_rows
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.sequences import shown
from mtl_jax.encoders.tabm import tabm
from mtl_jax.encoders.tabular import TAKES


def for_table(data: Dataset, **given: Any) -> Encoder:
    """An ensemble of thin members (`tabm`) for a data set of tables, as a call with literals that a run can save.

    It goes with ``**training.options_for_table(data)`` in `fit`. Trees win on some tables, which
    ``analysis.beside_trees(run, data)`` tells.

    Args:
      data: inputs are those of `tabular`. Cardinalities are those of its columns (``data.columns``) if it has any,
        else the largest codes of all its splits, plus 1.
      given: arguments of `tabm` that replace those chosen here.

    Raises:
      ValueError: for inputs that are no table.
    """
    splits = [s for k in SPLITS if (s := getattr(data, k)) is not None]
    tables = [x for s in splits for x in (s.inputs.values() if isinstance(s.inputs, PerTask) else [s.inputs])]
    for x in tables:
        arrays = x if isinstance(x, dict) else {"numbers": x}
        if (
            not arrays
            or not arrays.keys() <= {"numbers", "categories"}
            or any(np.ndim(v) != 2 for v in arrays.values())
        ):
            raise ValueError(f"inputs of {data.name!r} are no table: {shown(x)}; for_table takes {TAKES}")
    known = getattr(data.columns, "cardinalities", None)
    codes = [np.asarray(x["categories"]) for x in tables if isinstance(x, dict) and "categories" in x]
    if known is None:
        known = np.max([c.max(0, initial=0) + 1 for c in codes], 0) if codes else ()
    chosen = {"cardinalities": tuple(map(int, known)), "features": (width_for(num_rows(data.train)),) * 2}
    return tabm(**{**chosen, **given})


def width_for(rows: int) -> int:
    """128, or 256 where there are rows enough."""
    return 128 if rows < 5000 else 256
