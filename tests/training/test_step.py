"""One step: plain where it should be plain, blind to absent tasks, and the same on eight devices as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import balancing, parallel, partition
from mtl_jax.model import forward
from mtl_jax.tasks import loss_sum
from mtl_jax.training import optimizers, state
from mtl_jax.training.dispatch import lay_out, make_dispatch
from mtl_jax.training.start import resolve_tasks
from tests import tiny

# One or two for each thing that a method may read or keep; every method is in test_every_method.py.
METHODS = {n: n for n in ("equal", "uncertainty", "famo", "upgrad", "mgda", "pcgrad", "graddrop", "db_mtl")}
METHODS["fixed"] = "fixed((0.5, 2.0, 1.0))"


def test_equal_weights_are_plain_training():
    """Three steps against optax on jax.grad of the sum of losses, written out here, in float64."""
    data = tiny.data()
    with jax.enable_x64(True):
        step, first = tiny.training("equal", optimizer=optax.sgd(0.1, momentum=0.9))
        state, batch = tiny.in_double(first), tiny.double(tiny.batch())
        model, tasks = tiny.model(data.tasks, encoder=tiny.BATCH_NORM), resolve_tasks(data.tasks, data)
        optimizer = optax.sgd(0.1, momentum=0.9)

        @jax.jit
        def plain(params, model_state, moments):
            def loss(params):
                variables = {"params": params, "state": model_state}
                outputs, new_state, _ = forward(model, variables, batch, train=True)
                sums = [loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name]) for t in tasks]
                return sum(total / count for total, count in sums), new_state

            gradient, new_state = jax.grad(loss, has_aux=True)(params)
            updates, moments = optimizer.update(gradient, moments)
            return optax.apply_updates(params, updates), new_state, moments

        expected = state.params, state.state, optimizer.init(state.params)
        run = jax.jit(step)
        for _ in range(3):
            expected = plain(*expected)
            state, record = run(state, batch)
        tiny.assert_close((state.params, state.state), expected[:2], rtol=1e-10, atol=1e-12)
        assert int(state.step) == 3 and record["finite"].all()


# Those that no other here is like: of losses with a state and with a look afterwards, of the Gramian, of the Jacobian.
NOW = ("uncertainty", "famo", "upgrad", "db_mtl")


@pytest.mark.parametrize("name", [n if n in NOW else pytest.param(n, marks=pytest.mark.slow) for n in METHODS])
def test_a_task_without_labels_keeps_everything_it_has(name):
    """Head, optimizer moments (decay and momentum too), balancer entries; the others move as if it were not there."""
    step, first = tiny.training(METHODS[name])
    run = jax.jit(step)
    state, _ = run(first, tiny.batch())
    after, record = run(state, tiny.without_labels(tiny.batch(), "price"))
    tiny.assert_same(after.params["tasks"]["price"], state.params["tasks"]["price"])
    tiny.assert_same(after.opt_state["price"], state.opt_state["price"])
    if name == "uncertainty":
        tiny.assert_same(*(jax.tree.map(lambda x: x[1], s.balancer_state) for s in (after, state)))
    for other in ("color", "sold"):
        path = partition.flatten(after.params["tasks"][other])
        assert all((np.asarray(v) != np.asarray(partition.flatten(state.params["tasks"][other])[p])).any()
                   for p, v in path.items())  # fmt: skip
    assert not bool(record["labelled"][1]) and float(record["losses"][1]) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(tiny.bits(after.params)))


def test_a_batch_without_any_label_changes_nothing_but_the_count():
    step, first = tiny.training("upgrad")
    batch = tiny.batch()
    for task in batch.masks:
        batch = tiny.without_labels(batch, task)
    after, _ = jax.jit(step)(first, batch)
    tiny.assert_same(after._replace(step=first.step), first)
    assert int(after.step) == 1


def broken(task="price"):
    batch = tiny.batch()
    row = int(np.flatnonzero(batch.masks[task])[0])
    return batch._replace(targets={**batch.targets, task: batch.targets[task].at[row].set(jnp.inf)})


def test_a_non_finite_loss_stops_the_step():
    step, first = tiny.training("upgrad")
    after, record = jax.jit(step)(first, broken())
    tiny.assert_same(after._replace(step=first.step), first)
    assert np.asarray(record["finite"]).tolist() == [True, False, True]


def test_a_non_finite_task_can_be_skipped():
    """The step is that of a batch in which the task has no labels."""
    step, first = tiny.training("upgrad", nonfinite="skip_task")
    run = jax.jit(step)
    tiny.assert_same(run(first, broken())[0], run(first, tiny.without_labels(tiny.batch(), "price"))[0])
    with pytest.raises(ValueError, match=r"unknown nonfinite 'ignore'; \(stop, skip_task\)"):
        tiny.training("upgrad", nonfinite="ignore")


def test_l1_and_l2_reach_kernels_only():
    """Against the penalised gradient by hand: sgd(1) moves a kernel by l1 sign(w) + l2 w more, biases not at all."""
    ones = optax.sgd(1.0)
    plain, first = tiny.training("equal", optimizer=ones)
    penalised, _ = tiny.training("equal", optimizer=ones, l1=0.01, l2=0.1)
    with_penalty = partition.flatten(jax.jit(penalised)(first, tiny.batch())[0].params)
    without = partition.flatten(jax.jit(plain)(first, tiny.batch())[0].params)
    for path, w in partition.flatten(first.params).items():
        extra = 0.01 * np.sign(w) + 0.1 * w if w.ndim > 1 else np.zeros_like(w)
        np.testing.assert_allclose(without[path] - with_penalty[path], extra, atol=1e-5, err_msg=path)


BY_DEVICES = {("uncertainty", "jit"), ("upgrad", "jit"), ("upgrad", "pmap"), ("famo", "pmap"), ("pcgrad", "jit"),
              ("graddrop", "pmap"), ("db_mtl", "jit")}  # fmt: skip


@pytest.mark.parametrize("parallel_by, name", [
    pytest.param(by, name, marks=() if (name, by) in BY_DEVICES else pytest.mark.slow)
    for by in ("jit", "pmap") for name in METHODS
])  # fmt: skip
def test_eight_devices_compute_what_one_does(parallel_by, name):
    """One step in float64, labels missing unevenly over the devices, batch normalisation included."""
    with jax.enable_x64(True):
        step, first, layout = tiny.training(METHODS[name], stacked=True)
        first = tiny.in_double(first)
        split = tiny.double(tiny.batch(32))
        split = split._replace(masks={**split.masks, "sold": split.masks["sold"] & (jnp.arange(32) < 5)})
        rows = np.arange(16, dtype=np.int32)[None]
        results = []
        for devices, how in ((1, "jit"), (8, parallel_by)):
            mesh = parallel.make_mesh(devices)
            placed = jax.device_put(jax.tree.map(jnp.copy, first), parallel.replicated(mesh))
            dispatch = make_dispatch(step, mesh, how)
            splits = jax.device_put((lay_out(split, layout),), parallel.replicated(mesh))
            results.append(dispatch(placed, splits, (rows,)))
        (one, record), (many, records) = results
        tiny.assert_close(many._replace(key=None), one._replace(key=None), rtol=1e-9, atol=1e-10)
        tiny.assert_close(records, record, rtol=1e-9, atol=1e-10)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.params, first.params)
        assert min(jax.tree.leaves(moved["shared"])) > 1e-6


@pytest.mark.parametrize("name", ["upgrad", "graddrop"])
def test_a_balancer_of_gradients_needs_something_shared(name):
    data = tiny.data()
    with pytest.raises(ValueError, match="none trains here .* use 'equal', 'fixed' or 'uncertainty'"):
        tiny.training(name, model=tiny.model(data.tasks, "independent"))
    with pytest.raises(ValueError, match="none trains here"):
        tiny.training(name, freeze="shared/.*")


def test_every_leaf_of_a_state_has_a_buffer_of_its_own():
    """A step that donates its state cannot take one buffer twice, and two leaves may start as one array."""
    one = jnp.ones((2, 2))
    variables = {"params": {"shared": {"a": one, "b": one}, "tasks": {}}, "state": {"shared": {}, "tasks": {}}}
    paths = frozenset({"shared/a", "shared/b"})
    made = state.create(
        variables, 1, optimizers.per_owner(optax.adam(1e-3)), balancing.equal(), paths, jax.random.key(0)
    )
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((made.params, made.opt_state))]
    assert len(buffers) == len(set(buffers)) == 7
