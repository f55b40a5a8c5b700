"""Hard sharing and independence: who owns what, and what stays the same when tasks come and go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.sharing import forward
from tests import tiny


def owners(model):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), tiny.batch()))
    return {p: partition.owner(p) for p in partition.flatten(variables["params"])}


def test_shared_stages_is_a_choice():
    tasks = tiny.data().tasks
    whole, half = owners(tiny.model(tasks)), owners(tiny.model(tasks, "hard(shared_stages=1)"))
    assert {p for p, o in whole.items() if o == "shared"} == {
        f"shared/encoder/stage_{i}/dense/{leaf}" for i in (0, 1) for leaf in ("kernel", "bias")
    }
    assert "shared/encoder/stage_1/dense/kernel" not in half
    assert half["tasks/price/encoder/stage_1/dense/kernel"] == "price"
    assert "shared" not in owners(tiny.model(tasks, "independent")).values()
    with pytest.raises(ValueError, match=r"hard: shared_stages=3 must lie in 1..2.* use sharing 'independent'"):
        tiny.model(tasks, "hard(shared_stages=3)")


@pytest.mark.parametrize("sharing", ["hard", "hard(shared_stages=1)", "independent"])
def test_adding_and_reordering_tasks_changes_no_other_tasks_start(sharing):
    tasks = list(tiny.data().tasks)
    first = tiny.init(tiny.model(tasks, sharing), tiny.batch())["params"]
    other = tiny.init(tiny.model([mtl.Task("new", "binary"), *tasks[::-1]], sharing), tiny.batch())["params"]
    tiny.assert_same(first["shared"], other["shared"])
    for task in tasks:
        tiny.assert_same(first["tasks"][task.name], other["tasks"][task.name])


def test_independent_is_one_network_per_task():
    """Each task's outputs are those of a model of that task alone, with the same parameters."""
    data = tiny.data()
    model = tiny.model(data.tasks, "independent", tiny.BATCH_NORM)
    variables = tiny.init(model, tiny.batch())
    outputs, _, _ = forward(model, variables, tiny.batch())
    for task in data.tasks:
        alone = tiny.model([task], "hard", tiny.BATCH_NORM)
        own, state = variables["params"]["tasks"][task.name], variables["state"]["tasks"][task.name]
        moved = {"params": {"shared": {"encoder": own["encoder"]}, "tasks": {task.name: {"head": own["head"]}}},
                 "state": {"shared": {"encoder": state["encoder"]}, "tasks": {}}}  # fmt: skip
        np.testing.assert_allclose(forward(alone, moved, tiny.batch())[0][task.name], outputs[task.name], rtol=1e-5)


def test_statistics_of_per_task_inputs_are_kept_per_task():
    data = tiny.per_task_data()
    model = tiny.model(data.tasks, encoder=tiny.BATCH_NORM)
    batch = tiny.batch(12, data)
    variables = tiny.init(model, batch)
    assert not variables["state"]["shared"] and set(variables["state"]["tasks"]) == {"a", "b"}
    _, state, _ = jax.jit(lambda v, b: forward(model, v, b, train=True))(variables, batch)
    mean = {t: state["tasks"][t]["shared"]["encoder"]["stage_0"]["batch_stats"] for t in ("a", "b")}
    mean = {t: x["finish"]["norm"]["mean"] for t, x in mean.items()}
    assert (np.asarray(mean["a"]) != np.asarray(mean["b"])).any()


def test_heads_may_have_hidden_layers():
    tasks = [mtl.Task("a", "regression", size=2, head="vector(hidden=(5,))"), mtl.Task("b", "binary")]
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), tasks)
    batch = mtl.Batch(jnp.ones((3, 2)), {}, {})
    variables = tiny.init(model, batch)
    assert variables["params"]["tasks"]["a"]["head"]["hidden_0"]["kernel"].shape == (4, 5)
    outputs, _, _ = forward(model, variables, batch)
    assert outputs["a"].shape == (3, 2) and outputs["b"].shape == (3,)
    with pytest.raises(ValueError, match="unknown head of task 'a': 'vectr'; did you mean 'vector'"):
        mtl.sharing.hard(mtl.encoders.mlp(), [mtl.Task("a", "binary", head="vectr")])


def test_two_tasks_of_one_name():
    with pytest.raises(ValueError, match="two tasks are called 'a'"):
        mtl.sharing.hard(mtl.encoders.mlp(), [mtl.Task("a", "binary")] * 2)
    with pytest.raises(ValueError, match="a model needs at least one task"):
        mtl.sharing.hard(mtl.encoders.mlp(), [])
