"""Part "probe" of `transfer.py`: what a frozen trunk costs, and features that are computed once."""

import pathlib
import time
from typing import Any

import jax
import numpy as np

import mtl_jax as mtl
from mtl_jax import transfer
from mtl_jax.model import forward
from mtl_jax.tasks import task_losses
from scripts.benchmarks import measuring, transfer_model

ROWS = 256  # of the data set


def probe_lines(folder: pathlib.Path) -> list[str]:
    """What a probe costs beside the forward pass and head, and beside itself with features computed once."""
    step, (run, batch) = transfer_model.of_method(folder, "probe"), transfer_model.read(folder)
    made = measuring.compiled(step.function, step.first(), step.batch)

    def loss(variables: Any, batch: Any) -> Any:
        sums, counts = task_losses(run.tasks, forward(run.model, variables, batch)[0], batch)
        return sums / counts

    alone = jax.jit(loss).lower(run.variables, batch).compile().cost_analysis()["flops"]
    draw, rows = np.random.default_rng(0), [ROWS, 2 * transfer_model.BATCH]
    parts = [(transfer_model.texts(draw, n), {"topic": draw.integers(0, transfer_model.CLASSES, n)}) for n in rows]
    data = mtl.data.from_arrays(*parts[0], kinds={"topic": run.tasks[0]}, val=parts[1], test=parts[1], name="drawn")
    epoch, seconds, whole = ROWS // transfer_model.BATCH, {}, {}
    for cache in (True, False):
        began = time.perf_counter()
        tuned = transfer.fine_tune(
            run, data, method="probe", num_steps=4 * epoch, cache=cache, batch_size=transfer_model.BATCH,
            steps_per_dispatch=epoch, log_every=epoch, eval_every=4 * epoch, progress=False, monitor=False,
        )  # fmt: skip
        whole[cache] = time.perf_counter() - began
        at = {r["step"]: r["seconds"] for r in tuned.history if r["split"] == "train"}
        seconds[cache] = min(at[(i + 1) * epoch] - at[i * epoch] for i in (1, 2))
    return [
        f"a probe's step: {made.flops / 1e9:.3f} GFLOP, forward and head alone {alone / 1e9:.3f}: "
        f"{made.flops / alone:.4f} times",
        f"its optimizer holds {step.held:,} numbers; {step.trains:,} train, all of the head",
        f"a probe's epoch of {epoch} steps: {seconds[False]:.3f} s, with features computed once "
        f"{1e3 * seconds[True]:.2f} ms: {seconds[False] / seconds[True]:.0f} times as fast",
        f"four epochs with compilation, and with computing the features: {whole[False]:.1f} and {whole[True]:.1f} s",
    ]
