"""Loading by rules: what is loaded, kept, unused and reshaped is said, and what does not fit loads nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.model import forward
from mtl_jax.transfer import KEEP, DoesNotFit, load_parameters
from mtl_jax.transfer.class_order import in_order
from mtl_jax.transfer.resizing import channels, positions
from tests import tiny
from tests.transfer.test_importing import write_safetensors

OLD = {
    "trunk.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "trunk.bias": np.array([1, 2, 3], np.float32),
    "head.weight": np.ones((2, 3), np.float32), "steps": np.array(7),
}  # fmt: skip
NEW = {
    "shared": {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}},
    "tasks": {"a": {"w": jnp.full(2, 9.0)}},
}
TRUNK = (
    (r"shared/dense/kernel", "trunk.weight", lambda x: x.transpose(1, 0)),
    (r"shared/dense/(\w+)", r"trunk.\1"),
    (r"tasks/.*", KEEP),
)


def test_rules_say_where_each_leaf_comes_from(tmp_path):
    write_safetensors(tmp_path / "m.safetensors", {k: v for k, v in OLD.items() if v.dtype == np.float32})
    for source in (OLD, tmp_path / "m.safetensors"):
        loaded, report = load_parameters(NEW, source, TRUNK)
        np.testing.assert_array_equal(loaded["shared"]["dense"]["kernel"], OLD["trunk.weight"].T)
        np.testing.assert_array_equal(loaded["shared"]["dense"]["bias"], OLD["trunk.bias"])
        assert loaded["tasks"]["a"]["w"] is NEW["tasks"]["a"]["w"]
        assert report["loaded"] == ["shared/dense/bias", "shared/dense/kernel"] and report["kept"] == ["tasks/a/w"]
        assert set(report["unused"]) >= {"head.weight"} and report["reshaped"] == []
        table = str(report)
        assert "2 loaded, 1 kept" in table and "(3, 2) -> (2, 3)" in table and "head.weight" in table
    assert (NEW["shared"]["dense"]["kernel"] == 0).all()


def test_a_path_that_no_rule_matches_has_its_own_name():
    loaded, _ = load_parameters({"a": jnp.zeros(2), "b": jnp.zeros(1)}, {"a": np.ones(2, np.float32)}, [("b", KEEP)])
    assert (loaded["a"] == 1).all()


def test_what_does_not_fit_is_listed_and_nothing_is_loaded():
    wrong = ((r"shared/dense/(\w+)", r"trunk.\1"),)
    with pytest.raises(DoesNotFit) as error:
        load_parameters(NEW, OLD, wrong)
    text, report = str(error.value), error.value.report
    assert "the given arrays cannot fill the model; nothing was loaded:" in text
    assert "uncovered shared/dense/kernel: there is no 'trunk.kernel' in it; did you mean 'trunk." in text
    assert "uncovered tasks/a/w: no rule names it, and the source has no 'tasks/a/w'" in text
    assert report["uncovered"] == ["shared/dense/kernel", "tasks/a/w"]
    with pytest.raises(DoesNotFit, match=r"unfit shared/dense/kernel: \(3, 2\) there, \(2, 3\) in the model"):
        load_parameters(NEW, OLD, (("shared/dense/kernel", "trunk.weight"), *TRUNK[1:]))
    with pytest.raises(DoesNotFit, match=r"unfit .*\(3,\) is not of the layout that is expected there"):
        load_parameters(NEW, OLD, (("shared/dense/kernel", "trunk.bias", lambda x: x.transpose(1, 0)), *TRUNK[1:]))
    with pytest.raises(DoesNotFit, match="unfit tasks/a/w: int64 there, float32 in the model"):
        load_parameters(NEW, OLD, (*TRUNK[:2], ("tasks/a/w", "steps")))


@pytest.mark.parametrize(
    "rules, message",
    [
        ([("shared/dens/.*", "x")], "rule 'shared/dens/.*' matches no path of the model; did you mean 'shared/dense/"),
        ([("shared/(.*", "x")], "is not a regular expression"),
        ([("shared/dense/.*", r"trunk.\3")], r"the old path 'trunk.\\\\3' cannot be filled in"),
        ([("shared/.*", 3)], r"rule \('shared/.*', 3\) is none; it must be \(regex, old path\)"),
        ([("shared/.*", ("a", "b"))], "is none; it must be"),
        ("shared/.*", "rules are 'shared/.*'; give ordered ones"),
        ([(".*", KEEP)], "nothing would be loaded from the given arrays: the rules keep every path"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_meant(rules, message):
    with pytest.raises(ValueError, match=message):
        load_parameters(NEW, OLD, rules)


def test_what_must_not_be_left_over():
    with pytest.raises(
        ValueError, match="holds 1 arrays that the model has no place for: head.weight; is it of another"
    ):
        load_parameters(NEW, OLD, TRUNK, unused="steps")
    load_parameters(NEW, OLD, TRUNK, unused=("steps", r"head\..*"))


def test_values_that_are_not_finite_or_become_so_are_refused():
    broken = {**OLD, "trunk.bias": np.array([1, np.nan, 3], np.float32)}
    with pytest.raises(ValueError, match="values of trunk.bias, for shared/dense/bias, are not finite"):
        load_parameters(NEW, broken, TRUNK)
    small = jax.tree.map(lambda x: x.astype(jnp.float16), NEW)
    large = {**OLD, "trunk.bias": np.array([1, 1e6, 3], np.float32)}
    with pytest.raises(ValueError, match="are too large for float16"):
        load_parameters(small, large, TRUNK)


def test_dtype_and_sharding_are_those_of_the_leaf():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    like = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16, sharding=rows)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    loaded, report = load_parameters({"w": like}, {"w": values})
    assert loaded["w"].sharding == rows and loaded["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded["w"], np.float32), values)
    assert "float32 -> bfloat16" in str(report)
    with pytest.raises(ValueError, match="v is to keep its initial value, and is a shape without one"):
        load_parameters({"w": like, "v": like}, {"w": values}, [("v", KEEP)])


def test_sizes_change_only_where_it_is_asked_for():
    with pytest.raises(DoesNotFit, match=r"\(5, 2\) there, \(10, 2\) in the model"):
        load_parameters({"position": jnp.zeros((10, 2))}, {"position": np.ones((5, 2), np.float32)})
    resize = [("position", "positions")]
    loaded, report = load_parameters(
        {"position": jnp.zeros((10, 2))}, {"position": np.ones((5, 2), np.float32)}, resize=resize
    )
    np.testing.assert_allclose(loaded["position"], 1, rtol=1e-5)
    assert report["reshaped"] == ["position"] and "(5, 2) -> (10, 2)" in str(report)
    with pytest.raises(ValueError, match="unknown way of resizing 'position'; did you mean 'positions'"):
        load_parameters({"position": jnp.zeros(2)}, {}, resize=[("position", "position")])
    with pytest.raises(DoesNotFit, match="2 x 2 and 1 more do not become 2 x 2; say which grid"):
        load_parameters({"position": jnp.zeros((8, 2))}, {"position": np.ones((5, 2), np.float32)}, resize=resize)


def test_positions_grow_as_pillow_enlarges_images():
    """Bicubic with a = -0.5, as Pillow has it; the class token stays."""
    from PIL import Image

    values = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
    found = positions(values, (1 + 6 * 8, 3), (6, 8))
    np.testing.assert_array_equal(found[0], values[0])
    for channel in range(3):
        image = Image.fromarray(values[1:, channel].reshape(4, 4)).resize((8, 6), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[1:, channel].reshape(6, 8), np.asarray(image), atol=1e-5)


def test_grey_images_give_what_equal_channels_gave():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(3, 3, 1))
    expected = np.einsum("hwi,hwio->o", np.repeat(x, 3, -1), kernel)
    for count in (1, 6):
        found = np.einsum("hwi,hwio->o", np.repeat(x, count, -1), channels(kernel, (3, 3, count, 4)))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def run():
    data = tiny.data().select(["color", "price"])
    return tiny.fit(tiny.model(data.tasks, encoder=tiny.BATCH_NORM), data)


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    run.save(folder)
    return folder


def test_a_saved_run_is_loaded_with_its_statistics(run, saved):
    """From the folder, one of its checkpoints, and the run in memory: parameters and statistics by the same rules."""
    model = tiny.model(tiny.data().select(["color", "price"]).tasks, encoder=tiny.BATCH_NORM)
    first = tiny.init(model, tiny.batch(4), seed=5)
    for source in (saved, saved / "checkpoints", saved / "checkpoints" / "20", run):
        loaded, report = load_parameters(first, source)
        tiny.assert_same(loaded, run.variables)
        assert any("/batch_stats/" in p for p in report["loaded"]) and not report["unused"]
    only, _ = load_parameters(first["params"], saved)
    tiny.assert_same(only, run.params)


def test_statistics_of_each_task_need_a_rule():
    """FiLM's are each task's own: a new task has none, which is said; a rule says whose it takes."""
    data = tiny.data().select(["color", "price"])
    film = tiny.init(tiny.model(data.tasks, "film", tiny.BATCH_NORM), tiny.batch(4))
    film = {"params": film["params"], "state": jax.tree.map(lambda x: x + 0.5, film["state"])}
    new = tiny.model([mtl.Task("sold", "binary")], "film", tiny.BATCH_NORM)
    own = (r"tasks/sold/(?!.*batch_stats).*", KEEP)
    inputs = tiny.data().train.inputs
    with pytest.raises(DoesNotFit, match="uncovered tasks/sold/shared/encoder/.*/batch_stats/.*/mean"):
        mtl.transfer.start_from(new, film, [own], inputs=inputs)
    rule = (r"tasks/sold/(shared/encoder/.*/batch_stats/.*)", r"tasks/color/\1")
    adapted = mtl.transfer.start_from(new, film, [own, rule], inputs=inputs, freeze="shared/.*")
    old = partition.flatten(film["state"])
    assert adapted.variables["state"] and adapted.freeze == "shared/.*"
    for path, value in adapted.variables["state"].items():
        np.testing.assert_array_equal(value, old[path.replace("tasks/sold", "tasks/color")])


def test_fit_resumes_its_own_run_then_loads_then_draws(run, saved, tmp_path):
    model = tiny.model([mtl.Task("sold", "binary")], encoder=tiny.BATCH_NORM)
    new = mtl.transfer.start_from(model, saved, [("tasks/.*", KEEP)], inputs=tiny.data())
    still = {"optimizer": "sgd(learning_rate=0.0)", "num_steps": 5, "eval_every": 5}
    first = tiny.fit(new, tiny.data(), **still)
    tiny.assert_same(first.params["shared"], run.params["shared"])
    drawn = tiny.fit(model, tiny.data(), **still)
    tiny.assert_same(first.params["tasks"], drawn.params["tasks"])
    moving = {"num_steps": 5, "eval_every": 5, "workdir": tmp_path / "w"}
    moved = tiny.fit(new, tiny.data(), **moving)
    again = tiny.fit(new, tiny.data(), **moving)
    assert again.resumed_from == 5
    tiny.assert_same(again.state.params, moved.state.params)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(
        jax.tree.leaves(moved.state.params["shared"]), jax.tree.leaves(run.params["shared"]), strict=True))  # fmt: skip


def with_classes(task, classes):
    return mtl.Task(task.name, task.kind, classes=classes)


def test_classes_of_a_loaded_head_are_matched_by_name(run):
    """Probabilities of a class are the run's, wherever it stands in the new task, and some of the classes will do."""
    x = jnp.asarray(tiny.data().test.inputs)
    color, price = run.tasks
    named = dataclasses.replace(run, tasks=(with_classes(color, ("red", "green", "blue")), price))
    new = tiny.model([with_classes(color, ("blue", "red"))], encoder=tiny.BATCH_NORM)
    adapted = mtl.transfer.start_from(new, named, inputs=x)
    assert adapted.carried == ("color",) and "tasks/color/head/out/kernel" in adapted.report["reshaped"]
    first = tiny.init(new, tiny.batch(4))
    variables = {k: partition.unflatten(adapted.variables[k], first[k]) for k in first}
    found, _, _ = forward(new, variables, mtl.Batch(x, {}, {}))
    whole, _, _ = forward(run.model, run.variables, mtl.Batch(x, {}, {}))
    np.testing.assert_allclose(found["color"], whole["color"][:, jnp.array([2, 0])], rtol=1e-5)
    other = tiny.model([with_classes(color, ("blue", "grey", "red"))], encoder=tiny.BATCH_NORM)
    with pytest.raises(
        DoesNotFit, match="the head was trained for the classes red, green, blue; it was not trained for"
    ):
        mtl.transfer.start_from(other, named, inputs=x)
    with pytest.raises(ValueError, match="2 outputs are called 'crane'"):
        in_order("bird", ("crane",), ("crane", "owl", "crane"))


def test_a_loaded_head_keeps_its_scaler(run):
    far = dataclasses.replace(run.tasks[1], scaler=mtl.tasks.Scaler((1e6,), (10.0,)))
    adapted = mtl.transfer.start_from(tiny.model([far], encoder=tiny.BATCH_NORM), run, inputs=tiny.data())
    assert adapted.carried == ("price",) and adapted.model.tasks[0].scaler == run.tasks[1].scaler
