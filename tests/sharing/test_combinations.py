"""Every architecture with methods that read different things, labels missing, on eight devices as on one.

One kind of method per architecture always, in turn; the rest of the product with ``-m slow``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import parallel, partition
from mtl_jax.balancing.options import Options
from mtl_jax.checkpoint import Checkpoints
from tests import tiny
from tests.sharing.test_architectures import ARCHITECTURES
from tests.sharing.test_graphs import ARCHITECTURES as GRAPHS
from tests.sharing.test_graphs import jit

# One method, and one mode of the engine, for each thing that a method may read.
METHODS = {
    "losses": ("uncertainty", Options("map")),
    "gramian": ("pcgrad", Options("map")),
    "by columns": ("upgrad", Options("columns")),
    "jacobian": ("graddrop", Options("vmap")),
    "two samples": ("modo", Options("map")),
    "validation batches": ("auto_lambda", Options("map")),
}
NOTHING_SHARED = ("independent", "soft")
# Over devices they do what another one here does: PLE, film, dMTRL, and the other cascade, cooperation and branching.
LIKE_ANOTHER = ("cgc", "adapters", "go_mtl(latent=2)", "cascade(order=('price', 'sold'), successive=0.1)",
                "cooperative", "learning_to_branch(straight_through=True)")  # fmt: skip
TEXTS = [t for t in (*ARCHITECTURES, *GRAPHS) if t.split("(")[0] != "hard" or "shared_stages" in t]


def cases():
    """(architecture, what its method reads); one in turn is run always, the others are marked slow."""
    assert set(LIKE_ANOTHER) <= set(TEXTS)
    kinds = list(METHODS)
    for i, text in enumerate(TEXTS):
        usual = "losses" if text.split("(")[0] in NOTHING_SHARED else kinds[i % len(kinds)]
        for kind in kinds:
            if kind != "losses" and text.split("(")[0] in NOTHING_SHARED:
                continue
            marks = () if kind == usual and text not in LIKE_ANOTHER else pytest.mark.slow
            yield pytest.param(text, kind, marks=marks, id=f"{text.split('(')[0]}{i}-{kind}")


@functools.cache
def rows():
    """32 rows, whose second task has labels on two of eight devices only."""
    batch = tiny.batch(32)
    return batch._replace(masks={**batch.masks, "price": batch.masks["price"] & (jnp.arange(32) < 7)})


@pytest.mark.parametrize("text, kind", list(cases()))
def test_eight_devices_compute_what_one_does_and_the_state_survives(text, kind, tmp_path):
    """One step in float64, of all rows on every device and of some on each; then all that training keeps goes through a
    checkpoint, to the bit."""
    method, options = METHODS[kind]
    with jax.enable_x64(True):
        model = tiny.model(tiny.data().tasks, text, tiny.BATCH_NORM)
        step, first = tiny.training(method, model=model, options=options)
        first, batch = tiny.in_double(first), tiny.double(rows())
        batches = (batch, batch) if kind == "validation batches" else (batch,)
        run, mesh = jit(step), parallel.make_mesh(8)  # traced once; on one device alone in test_step
        first = jax.device_put(first, parallel.replicated(mesh))
        lying = (parallel.replicated(mesh), parallel.split_rows(mesh))
        (one, record), (many, records) = (run(first, *jax.device_put(batches, how)) for how in lying)
        tiny.assert_close(many._replace(key=None), one._replace(key=None), rtol=1e-8, atol=1e-9)
        tiny.assert_close(records, record, rtol=1e-8, atol=1e-9)
        assert np.isfinite(record["losses"]).all() and record["labelled"].all()
        before, after = partition.flatten(first.params), partition.flatten(one.params)
        moved = {partition.owner(p) for p in before if (np.asarray(before[p]) != np.asarray(after[p])).any()}
        assert moved == {partition.owner(p) for p in before}
    single = jax.tree.map(lambda x: x.astype("float32") if jnp.issubdtype(x.dtype, jnp.floating) else x, one)
    with Checkpoints(tmp_path) as kept:
        kept.save(1, {"state": single})
        kept.wait()
        tiny.assert_same(kept.restore(1, {"state": single})["state"], single)
