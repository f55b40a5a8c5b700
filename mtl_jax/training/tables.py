"""How to train on a table: what `encoders.for_table` was chosen with."""

from typing import Any

from mtl_jax.batch import num_rows
from mtl_jax.data.dataset import Dataset


def options_for_table(data: Dataset) -> dict[str, Any]:
    """Arguments of `fit`: ``mtl.fit(model, data, **mtl.training.options_for_table(data))``.

    AdamW at 0.002; batches of an eighth of the rows, 16 to 256; validation about once an epoch, of at most 200 steps,
    and an end when 16 of them in a row have brought nothing, or after 100.
    """
    rows = num_rows(data.train)
    batch = min(256, max(16, 2 ** ((rows // 8).bit_length() - 1) if rows >= 8 else 16))
    # Whole tens, so that a dispatch has several steps.
    epoch = min(200, max(10, -(-rows // batch) // 10 * 10))
    return {
        "optimizer": "adamw(learning_rate=0.002, weight_decay=0.03)",
        "batch_size": batch,
        "num_steps": 100 * epoch,
        "eval_every": epoch,
        "patience": 16,
    }
