"""Which rows a step reads: seeded shuffling that is a pure function of (seed, step), so that resuming is exact."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from mtl_jax.batch import Batch, PerTask, map_weights, num_rows


class Sampler:
    """Rows of the infinite concatenation of epochs, each epoch a permutation drawn from (seed, epoch).

    Args:
      num_rows: rows of the split.
      batch_size: rows per step; may exceed `num_rows`.
      seed: of the permutations.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int):
        if num_rows < 1:
            raise ValueError("a split without rows cannot be sampled")
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self._permutations: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            draw = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._permutations[epoch] = draw.permutation(self.num_rows).astype(np.int32)
        return self._permutations[epoch]

    def indices(self, start_step: int, num_steps: int) -> Int[np.ndarray, "steps batch"]:
        """int32 [num_steps, batch_size]: the rows of steps ``start_step : start_step + num_steps``."""
        first, last = start_step * self.batch_size, (start_step + num_steps) * self.batch_size
        epochs = range(first // self.num_rows, (last - 1) // self.num_rows + 1)
        rows = np.concatenate([self._permutation(e) for e in epochs])
        self._permutations = {e: p for e, p in self._permutations.items() if e >= epochs[-1]}
        offset = first - epochs[0] * self.num_rows
        return rows[offset : offset + last - first].reshape(num_steps, self.batch_size)


def padded_batches(split: Batch, batch_size: int, count: int | None = None) -> Batch:
    """A split as equal batches, for one compiled evaluation: `count` of them, or as many as the rows need.

    Returns:
      A `Batch` whose leaves are [num_batches, batch_size, ...]. Rows that fill up the last batch repeat the first row
      and have mask False; tasks with inputs of their own are filled up to the longest.
    """
    longest = num_rows(split)
    if count is None:
        batch_size = max(1, min(batch_size, longest))
        count = max(1, -(-longest // batch_size))

    def pad(x: Any) -> np.ndarray:
        x = np.asarray(x)
        filler = np.broadcast_to(x[:1], (count * batch_size - len(x), *x.shape[1:]))
        return np.concatenate([x, filler]).reshape(count, batch_size, *x.shape[1:])

    def pad_mask(x: Any) -> np.ndarray:
        x = np.asarray(x)
        filler = np.zeros((count * batch_size - len(x), *x.shape[1:]), bool)
        return np.concatenate([x, filler]).reshape(count, batch_size, *x.shape[1:])

    inputs = split.inputs
    inputs = (
        PerTask({t: jax.tree.map(pad, x) for t, x in inputs.items()})
        if isinstance(inputs, PerTask)
        else (jax.tree.map(pad, inputs))
    )
    targets, masks = {t: pad(y) for t, y in split.targets.items()}, {t: pad_mask(m) for t, m in split.masks.items()}
    return Batch(inputs, targets, masks, map_weights(lambda _, w: pad(w), split.weights))
