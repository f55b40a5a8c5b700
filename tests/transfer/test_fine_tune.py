"""Fine-tuning in stages, on features computed once and in closed form; adapters switched and mixed; tasks added."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import parallel, partition, transfer
from mtl_jax.training.averages import averaged, evaluated_at
from mtl_jax.training.identity import check_data
from mtl_jax.training.start import initial_variables
from mtl_jax.training.state import TrainState
from mtl_jax.transfer.fine_tune import cost_of, steps_of
from mtl_jax.transfer.methods import Stage
from tests import tiny
from tests.transfer.adapting import inputs, source, start, trained

SHORT = {"num_steps": 20, "batch_size": 16, "steps_per_dispatch": 5}


@pytest.fixture(autouse=True, scope="module")
def _one_device():
    SHORT["mesh"] = parallel.make_mesh(1)


def new():
    return tiny.data().select(["sold"])


def predicted(run):
    return run.predict(new().test.inputs)


# --- one fit --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["lora(rank=2)", *(pytest.param(t, marks=pytest.mark.slow) for t in (
    "bitfit", "adapters", "dora", "mtlora", "mtl_lora", "polytropon", "lora(per_task=True)", "sam", "ema", "mixup",
    "l2_sp", "delta_features", "distillation", "diff_pruning", "layerwise", "oft"))])  # fmt: skip
def test_what_does_not_train_keeps_its_bits_under_a_balancer(text):
    """Parameters and statistics, through momentum and decay; the balancer and the optimizer hold nothing for them."""
    data = tiny.data().select(["color", "sold"])
    adapted = transfer.adapt(source(), data.tasks, method=text)
    run = transfer.fine_tune(adapted, data, balancer="upgrad", optimizer="adamw(weight_decay=0.5)", learning_rate=0.01,
                             **SHORT)  # fmt: skip
    first = initial_variables(adapted.model, run.example, jax.random.fold_in(jax.random.key(0), 1), adapted.variables)
    trainable = partition.trainable_paths(first["params"], adapted.freeze)
    assert run.trainable == trainable
    old, now = (partition.flatten(x["params"]) for x in (first, run.variables))
    for path, x in now.items():
        if path not in trainable:
            np.testing.assert_array_equal(x, old[path], err_msg=path)
    trunk = any(p.startswith("shared/encoder") for p in trainable)
    if not trunk or text == "bitfit":
        tiny.assert_same(run.variables["state"]["shared"], source().variables["state"]["shared"])
    held = {p for tree in run.state.opt_state.values() for p in partition.flatten(tree)}
    assert all(any(h.endswith(p) for p in trainable) for h in held if "kernel" in h or "/a" in h)
    again = transfer.merge_adapter(run) if text == "lora(rank=2)" else None
    if again is not None:
        tiny.assert_close(again.predict(data.test.inputs), run.predict(data.test.inputs), rtol=1e-4, atol=1e-4)


# --- features that stay ---------------------------------------------------------------------------------------------
def test_features_computed_once_give_the_same_run():
    runs = [transfer.fine_tune(source(), new(), method="probe", cache=c, **SHORT) for c in (True, False)]
    assert runs[0].identity["data"] == runs[1].identity["data"]  # the features are of these data
    assert runs[0].state is None and runs[1].state is not None  # the first one trained on features
    tiny.assert_close(runs[0].variables, runs[1].variables, rtol=1e-5, atol=1e-6)
    tiny.assert_same(runs[0].params["shared"], source().params["shared"])
    tiny.assert_close(predicted(runs[0]), predicted(runs[1]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="cache=True, and features cannot be computed once: shared/adapter/.* trains"):
        transfer.fine_tune(source(), new(), method="lora(rank=2)", cache=True, **SHORT)


def test_the_closed_form_is_ridge_regression_by_scikit_learn():
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    data = tiny.data().select(["price"])
    run = transfer.fine_tune(source(), data, method="probe(solver='ridge', penalty=0.1)", num_steps=1)
    features = np.asarray(
        run.model.encode(run.variables, mtl.Batch(jnp.asarray(data.train.inputs), {}, {}), train=False)[0]
    )
    mask, scaler = data.train.masks["price"], run.tasks[0].scaler
    x = StandardScaler().fit(features[mask])
    fit = Ridge(alpha=0.1 * mask.sum()).fit(x.transform(features[mask]), data.train.targets["price"][mask])
    test = np.asarray(run.model.encode(run.variables, mtl.Batch(jnp.asarray(data.test.inputs), {}, {}), train=False)[0])
    expected = fit.predict(x.transform(test))
    np.testing.assert_allclose(run.predict(data.test.inputs)["price"], expected, rtol=1e-3, atol=1e-3 * scaler.std[0])
    tiny.assert_same(run.params["shared"], source().params["shared"])

    several = transfer.fine_tune(source(), tiny.data(), method="probe(solver='ridge')", num_steps=1)
    found = several.evaluate(tiny.data().train)
    assert found["color"]["accuracy"] > 0.5 and found["sold"]["loss"] < np.log(2) and found["price"]["r2"] > 0.2
    with pytest.raises(ValueError, match="solves for one linear layer"):
        task = dataclasses.replace(new().tasks[0], head="vector(hidden=(4,))")
        transfer.fine_tune(source(), dataclasses.replace(new(), tasks=(task,)), method="probe(solver='ridge')")


def test_a_closed_form_takes_no_argument_that_it_has_no_use_for(tmp_path):
    """Misspelt ones and wrong ones are errors as in `fit`; what an evaluation gives all methods alike passes."""
    adapted = transfer.adapt(source(), new().tasks, method="probe(solver='ridge')")
    usual = {**SHORT, "balancer": "equal", "balance_paths": (), "eval_every": 5, "patience": 3, "progress": False}
    run = transfer.fine_tune(adapted, new(), seed=3, l2=0.0, workdir=tmp_path, **usual)
    assert run.identity["order of tasks"] == ["sold"]
    check_data(tmp_path / "run", new())  # as the same command again does
    other = dataclasses.replace(new(), train=new().train._replace(inputs=new().train.inputs + 1))
    with pytest.raises(ValueError, match="holds a run of another config; it differs in .*train"):
        check_data(tmp_path / "run", other)
    for name, value in {"balancer": "upgrad", "l2": 1.0, "optimizer": "adam", "learning_rate": 0.1,
                        "learning_rate_factors": ((".*", 2.0),)}.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{name} is given, and probe\(solver='ridge'\) solves for the heads in"):
            transfer.fine_tune(adapted, new(), **{name: value})
    with pytest.raises(ValueError, match="unknown argument of fit 'batchsize'; did you mean 'batch_size'"):
        transfer.fine_tune(adapted, new(), batchsize=3)
    with pytest.raises(ValueError, match="batch_size"):
        transfer.fine_tune(adapted, new(), batch_size=-3)


# --- stages ---------------------------------------------------------------------------------------------------------
def test_a_run_killed_while_it_unfreezes_ends_with_the_same_bits(tmp_path):
    """And each stage trains what it says, from where the one before ended."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = {**SHORT, "num_steps": 30, "checkpoint_every": 5, "eval_every": 5}
    adapted = transfer.adapt(source(), new().tasks, method="gradual_unfreezing")
    run = transfer.fine_tune(adapted, new(), workdir=whole, **given)
    assert [r["stage"] for r in run.history if r["split"] == "val"] == [1, 1, 2, 2, 3, 3]
    assert [r["step"] for r in run.history if r["split"] == "val"] == [5, 10, 15, 20, 25, 30]
    assert run.seconds > 0 and run.cost.keys() >= {"compile_seconds", "peak_bytes"}
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "run")
    shutil.rmtree(killed / "stage_3")
    shutil.rmtree(killed / "stage_2/checkpoints/10")
    again = transfer.fine_tune(adapted, new(), workdir=killed, **given)
    tiny.assert_same(again.variables, run.variables)
    tiny.assert_same(again.state.opt_state, run.state.opt_state)
    loaded = mtl.load_run(killed / "run")
    tiny.assert_same(loaded.variables, run.variables)
    stages = [mtl.load_run(whole / "stage_2", run.model)]
    tiny.assert_same(stages[0].params["shared"]["encoder"]["stage_0"], source().params["shared"]["encoder"]["stage_0"])
    moved = stages[0].params["shared"]["encoder"]["stage_1"]["dense"]["kernel"]
    assert (np.asarray(moved) != source().params["shared"]["encoder"]["stage_1"]["dense"]["kernel"]).any()


def test_stages_share_the_steps_in_whole_dispatches():
    stages = [Stage(0.3, ()), Stage(0.7, ())]
    assert steps_of(stages, 1000) == [300, 700]
    assert steps_of(stages, 20, [5]) == [5, 15]
    assert sum(steps_of([Stage(1 / 7, ())] * 7, 50, [5])) == 50
    assert steps_of([None], 7) == [7]
    with pytest.raises(ValueError, match="fewer dispatches of 10 steps than there are stages, 2"):
        steps_of(stages, 10, [10])


def test_what_stages_cost_is_that_of_all():
    costs = [{"compile_seconds": 2.0, "peak_bytes": 9.0, "step_flops": 10.0},
             {"compile_seconds": 1.0, "peak_bytes": 5.0, "step_flops": 40.0}]  # fmt: skip
    assert cost_of(costs, [20, 10]) == {"compile_seconds": 3.0, "peak_bytes": 9.0, "step_flops": 20.0}
    assert cost_of([{}, costs[1]], [20, 10]) == {"compile_seconds": 1.0}  # the first one was finished before


def test_rates_of_methods_and_of_users():
    run = source()
    adapted = transfer.adapt(run, new().tasks, method="lora_plus(rank=2, ratio=4.0)")
    optimizer, factors = adapted.defaults(None, (), None)
    assert optimizer == "adam(learning_rate=0.0002)" and factors == ((".*/adapter/.*/b", 4.0),)
    assert adapted.defaults("sgd(0.1)", ((".*", 2.0),), None) == ("sgd(0.1)", ((".*", 2.0),))
    deep = transfer.adapt(run, new().tasks, method="layerwise(decay=0.5)")
    assert deep.factors == (("(?:.*/)?stage_0/.*", 0.25), ("(?:.*/)?stage_1/.*", 0.5))
    frozen = transfer.adapt(run, new().tasks, method="layerwise(decay=0.5)", freeze="shared/encoder/stage_0/.*")
    assert frozen.factors == (("(?:.*/)?stage_1/.*", 0.5),)
    with pytest.raises(ValueError, match="has a learning rate; leave it out there or in learning_rate"):
        transfer.fine_tune(adapted, new(), optimizer="adam(0.1)", learning_rate=0.2)
    with pytest.raises(ValueError, match="learning_rate goes with the name of an optimizer"):
        transfer.fine_tune(adapted, new(), optimizer=optax.adam(0.1), learning_rate=0.2)
    with pytest.raises(ValueError, match="give these to `adapt`"):
        transfer.fine_tune(adapted, new(), method="lora")


def test_averages_and_sam_are_evaluated_where_they_say():
    """The average by its recursion; SAM where it looked from, on steps on which it looks around."""
    params = {"shared": {"w": jnp.asarray([1.0, 2.0])}, "tasks": {}}
    flat = partition.flatten(params)
    grads = [{"shared/w": jnp.asarray(g)} for g in ([1.0, 0.0], [0.5, -1.0], [0.0, 2.0])]

    def at(state, flat):
        whole = partition.unflatten(flat, params)
        return evaluated_at(TrainState(jnp.zeros((), int), whole, {}, {"shared": state}, (), jax.random.key(0)))[
            "params"
        ]

    rule = averaged(optax.sgd(0.1), 0.9)
    state, mean, w = rule.init(flat), np.asarray([1.0, 2.0]), flat
    for t, g in enumerate(grads):
        updates, state = rule.update(g, state, w)
        w = optax.apply_updates(w, updates)
        keep = min(0.9, (1 + t) / (10 + t))
        mean = keep * mean + (1 - keep) * np.asarray(w["shared/w"])
        np.testing.assert_allclose(at(state, w)["shared"]["w"], mean, rtol=1e-6)

    sam = transfer.methods.sam(rho=0.5).wraps(optax.sgd(0.1))
    state = sam.init(flat)
    updates, state = sam.update(grads[0], state, flat)
    looking = optax.apply_updates(flat, updates)
    np.testing.assert_allclose(looking["shared/w"], [1.5, 2.0], rtol=1e-6)  # 0.5 up the normalised gradient
    np.testing.assert_array_equal(at(state, looking)["shared"]["w"], [1.0, 2.0])
    updates, state = sam.update(grads[1], state, looking)
    np.testing.assert_allclose(optax.apply_updates(looking, updates)["shared/w"], [0.95, 2.1], rtol=1e-6)


# --- several adapters -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("texts", [("lora(rank=2)",) * 2, ("adapters(width=2)",) * 2, ("dora(rank=2)", "lora(rank=2)")])
def test_rows_of_several_adapters_in_one_batch(texts, tmp_path):
    """Each row as its own adapter alone predicts it; one comes from a file."""
    trunk, x = source(), inputs(tiny.BATCH_NORM)
    runs = {}
    for name, text, seed in (("z", texts[0], 1), ("a", texts[1], 2)):
        tasks = trunk.tasks if name == "z" else trunk.tasks[1:]
        runs[name] = trained(*start(trunk, text, tasks), seed=seed)
    transfer.save_adapter(runs["a"], tmp_path / "a.npz")
    bank = transfer.Bank(trunk, {"z": runs["z"], "a": tmp_path / "a.npz"})
    assert (bank.one_by_one() is None) == (texts[0] == texts[1])
    names = np.where(np.arange(len(x)) % 3 == 0, "a", "z")
    mixed = bank.predict(x, names)
    for name, run in runs.items():
        tiny.assert_close(mixed[name], {t: v[names == name] for t, v in run.predict(x).items()}, rtol=1e-5, atol=1e-4)
        tiny.assert_close(bank.use(name).predict(x), run.predict(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="unknown adapter 'q'"):
        bank.predict(x, ["q"] * len(x))
    with pytest.raises(ValueError, match="11 names of adapters were given for 12 rows"):
        bank.predict(x, ["a"] * 11)
    with pytest.raises(ValueError, match="adapter 'b' is of another trunk"):
        bank.add("b", trained(*start(trained(*start(trunk, "full")), texts[0])))


# --- without forgetting ---------------------------------------------------------------------------------------------
def test_a_task_is_added_and_the_others_predict_the_same_bits():
    old, data = source(), tiny.data()
    adapted, first = start(old, "probe", new().tasks)
    joined = transfer.join(old, trained(adapted, first))
    assert [t.name for t in joined.tasks] == ["color", "price", "sold"]
    x = data.test.inputs
    before, after = old.predict(x), joined.predict(x)
    for t in before:
        np.testing.assert_array_equal(after[t], before[t])
    same = transfer.forgetting(old, joined, data.test)
    assert same.mean == 0 and same.rows["color"][0] == "accuracy"
    moved = transfer.join(old, trained(*start(old, "distillation", new().tasks)))
    lost = transfer.forgetting(old, moved, data.test)
    assert lost.rows["price"][3] == pytest.approx(lost.rows["price"][2] - lost.rows["price"][1]) and lost.mean != 0
    assert "price  mae" in str(lost)
    with pytest.raises(ValueError, match="both runs have the task 'color'"):
        transfer.join(old, old)
    without = dataclasses.replace(old, model=old.model._replace(spec=None))
    with pytest.raises(ValueError, match="was not made of named parts, so none can be made for the tasks of both"):
        transfer.join(without, without)
    with pytest.raises(ValueError, match="is adapted by lora"):
        transfer.join(old, start(old, "lora", new().tasks)[1])
    with pytest.raises(ValueError, match="no task in common"):
        transfer.forgetting(old, start(old, "probe", new().tasks)[1], data.test)


def test_old_rows_are_rehearsed():
    old = tiny.data().select(["color", "price"])
    fresh = tiny.data(rows=60, seed=4).select(["sold", "color"])
    mixed = transfer.rehearsal(fresh, old, share=0.25, seed=3)
    count, rows = round(0.25 * len(old.train.inputs)), len(fresh.train.inputs)
    assert [t.name for t in mixed.tasks] == ["color", "price", "sold"] and len(mixed.train.inputs) == count + rows
    np.testing.assert_array_equal(mixed.train.inputs[count:], fresh.train.inputs)
    kept = [np.flatnonzero((old.train.inputs == r).all(1))[0] for r in mixed.train.inputs[:count]]
    assert len(set(kept)) == count
    np.testing.assert_array_equal(mixed.train.targets["price"][:count], old.train.targets["price"][kept])
    assert not mixed.train.masks["price"][count:].any() and not mixed.train.masks["sold"][:count].any()
    np.testing.assert_array_equal(mixed.train.masks["color"][count:], fresh.train.masks["color"])
    assert len(mixed.val.inputs) == len(old.val.inputs) + len(fresh.val.inputs)
    with pytest.raises(ValueError, match=r"share=0 must lie in \(0, 1\]"):
        transfer.rehearsal(fresh, old, share=0)
    with pytest.raises(ValueError, match="different forms"):
        wide = np.zeros((30, 7), np.float32)
        transfer.rehearsal(mtl.data.from_arrays(wide, {"b": np.arange(30.0) + 0.5}, val=0.2, test=0.2), old)


def test_distillation_is_the_divergence_of_old_heads():
    """Zero at the start, and by its definition after: T^2 KL for classes, squares for numbers."""
    adapted, first = start(source(), "distillation(weight=0.5, temperature=3.0)", new().tasks)
    batch = tiny.batch(8, new())

    def extra(run):
        return float(run.model.encode(run.variables, batch, train=True, rng=None)[2]["losses"]["distillation"])

    still = first.model.encode(first.variables, batch, train=lambda path: False)[2]["losses"]["distillation"]
    assert abs(float(still)) < 1e-6
    run = trained(adapted, first)
    features = run.model.encode(run.variables, batch, train=lambda path: False)
    old = source()
    with_heads = {
        "params": {"shared": run.params["shared"], "tasks": old.params["tasks"]},
        "state": old.variables["state"],
    }
    said, wanted = (mtl.sharing.forward(old.model, v, batch)[0] for v in (with_heads, old.variables))
    p, q = (np.asarray(jax.nn.softmax(x["color"] / 3.0), np.float64) for x in (wanted, said))
    expected = 9 * (p * np.log(p / q)).sum(-1).mean() + ((said["price"] - wanted["price"]) ** 2).mean()
    assert float(features[2]["losses"]["distillation"]) == pytest.approx(0.5 * float(expected), rel=1e-4)
