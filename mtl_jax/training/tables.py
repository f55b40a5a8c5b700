"""How to train on a table: what `encoders.for_table` was chosen with."""

from typing import Any

from mtl_jax.batch import num_rows
from mtl_jax.data.dataset import Dataset


def options_for_table(data: Dataset) -> dict[str, Any]:
    """Arguments of `fit`: ``mtl.fit(model, data, **mtl.training.options_for_table(data))``.

    AdamW at 0.002; batches of an eighth of the rows, 16 to 256; validation about once an epoch, every 20 to 200 steps.
    It ends after 100 of them and at least 4,000 steps, or when 16 in a row, and at least 1,000 steps, have brought
    nothing: few rows are many epochs, and few validation rows say late that something is better. A task that does not
    beat the best constant on validation falls back to it (`training.verdicts`).
    """
    rows = num_rows(data.train)
    batch = min(256, max(16, 2 ** (max(1, rows // 8).bit_length() - 1)))
    # Whole tens, so that a dispatch has several steps.
    every = min(200, max(20, rows // batch // 10 * 10))
    return {
        "optimizer": "adamw(learning_rate=0.002, weight_decay=0.03)",
        "batch_size": batch,
        "num_steps": every * max(100, -(-4000 // every)),
        "eval_every": every,
        "patience": max(16, -(-1000 // every)),
        "fallback": True,
    }
