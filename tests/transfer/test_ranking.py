"""Ranking candidates by their features of a target, and fine-tuning the best."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import PerTask
from mtl_jax.transfer import ranking
from tests import tiny


@pytest.fixture(scope="module")
def run():
    """A run on two of the three tasks; its trunk has seen what the third asks for."""
    data = tiny.data().select(["color", "price"])
    return tiny.fit(tiny.model(data.tasks), data)


@pytest.fixture(scope="module")
def target():
    return tiny.data().select(["sold"])


def good(inputs):
    return np.asarray(inputs)[:, :2]


def bad(inputs):
    return np.random.default_rng(0).normal(size=(len(inputs), 4))


@pytest.fixture(scope="module")
def ranked(run, target):
    encoder = run.model.encoder
    variables = {k: run.variables[k]["shared"].get("encoder", {}) for k in ("params", "state")}
    return mtl.transfer.rank(
        {"bad": bad, "good": good, "run": run, "encoder": (encoder, variables)}, target, seed=1
    )  # fmt: skip


def test_scores_are_those_of_the_features_of_the_labelled_rows(ranked, run, target):
    train = target.train
    rows = np.flatnonzero(train.masks["sold"])
    labels = train.targets["sold"][rows].astype(int)
    x = np.asarray(train.inputs)[rows]
    found = ranked.values["sold"]
    assert found["good"]["ridge"] == ranking.ridge(good(x), labels)
    assert found["bad"]["gbc"] == ranking.gbc(bad(x), labels)
    params = run.params["shared"]["encoder"]
    for i in range(2):
        x = np.maximum(x @ params[f"stage_{i}"]["dense"]["kernel"] + params[f"stage_{i}"]["dense"]["bias"], 0)
    assert found["run"]["log_me"] == pytest.approx(ranking.log_me(x, ranking.one_hot(labels, 2)), abs=1e-4)
    theta = run.predict(np.asarray(train.inputs)[rows])["color"]
    assert found["run"]["leep"] == pytest.approx(ranking.leep(theta, labels), abs=1e-5)
    features = {k: v for k, v in found["run"].items() if k not in ("leep", "nce")}
    assert features == {k: found["encoder"][k] for k in features}


def test_the_order_and_what_is_left_out_are_said(ranked, target):
    assert ranked.order()[-1] == "bad" and ranked.mean_ranks()["bad"] == 4
    text = str(ranked.table())
    mask = target.train.masks["sold"]
    assert f"{mask.sum()} of {len(mask)} training rows have a label; the others are left out" in text
    assert "leep: no value for bad, good, encoder, the candidate has no classification head" in text
    assert "agreement (Kendall's tau): mean" in text
    assert ranked.blank["sold"]["bad"]["nce"] == "the candidate has no classification head"
    content = ranked.content()
    assert content["values"]["sold"]["bad"]["leep"] is None and set(content["order"]) == set(ranked.candidates)
    taus = ranked.taus("sold")
    assert taus["ridge", "log_me"] == pytest.approx(_tau(ranked, "ridge", "log_me"))


def _tau(ranked, one, other):
    """Kendall's tau-b by counting pairs."""
    a, b = ([found[s] for found in ranked.values["sold"].values()] for s in (one, other))
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(4) for j in range(i)]
    return sum(x * y for x, y in signs) / np.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))


def test_numbers_have_the_scores_that_read_them():
    data = tiny.data().select(["price"])
    ranked = mtl.transfer.rank({"good": np.asarray, "bad": bad}, data)
    assert {s for s, v in ranked.values["price"]["good"].items() if np.isfinite(v)} == {"ridge", "knn", "log_me"}
    assert ranked.order() == ["good", "bad"] and ranked.values["price"]["good"]["ridge"] > 0.99
    assert "parc: no value, it reads classes, and the task has numbers" in str(ranked.table())
    scaled = dataclasses.replace(
        data, train=data.train._replace(targets={"price": 7 + 9 * data.train.targets["price"]})
    )
    again = mtl.transfer.rank({"good": np.asarray, "bad": bad}, scaled)
    assert again.values["price"]["good"]["log_me"] == pytest.approx(ranked.values["price"]["good"]["log_me"], abs=1e-5)


def test_inputs_of_each_tasks_own_and_a_limit_of_rows():
    data = tiny.per_task_data()
    ranked = mtl.transfer.rank({"x": np.asarray}, data, scores_of=("ridge", "knn(k=1)"), max_rows=30)
    x, y = (np.asarray(v["b"]) for v in (data.train.inputs, data.train.targets))
    rows = np.sort(np.random.default_rng(0).choice(len(x), 30, replace=False))
    assert ranked.values["b"]["x"]["knn(k=1)"] == ranking.knn(x[rows], y[rows].astype(int), k=1)
    assert f"task b: 30 of {len(x)} labelled rows were drawn (max_rows, seed 0)" in ranked.notes


def test_features_of_each_tasks_own_have_a_row_each(target):
    data = tiny.data().select(["color", "price"])
    run = tiny.fit(tiny.model(data.tasks, "film"), data, num_steps=5, eval_every=5)
    ranked = mtl.transfer.rank({"film": run, "bad": bad}, target, scores_of=("ridge", "leep"))
    assert set(ranked.values["sold"]) == {"film[color]", "film[price]", "bad"} and set(ranked.order()) == {
        "film",
        "bad",
    }


def test_the_best_two_are_fine_tuned_and_validation_says_who_won(ranked, run, target):
    order = [n for n in ranked.order() if n in ("run", "encoder")]
    only = dataclasses.replace(
        ranked, candidates={n: ranked.candidates[n] for n in order},
        values={"sold": {n: ranked.values["sold"][n] for n in order}},
    )  # fmt: skip
    found = mtl.transfer.recommend(only, target, num_steps=10, batch_size=16, eval_every=5, steps_per_dispatch=5,
                                   seed=(0, 1), progress=False, mesh=mtl.parallel.make_mesh(1),
                                   optimizer="adam(learning_rate=0.02)")  # fmt: skip
    # Both start from one trunk, and heads are drawn by name: the same run twice.
    tiny.assert_close(found.runs["run"].params, found.runs["encoder"].params, rtol=1e-6)
    np.testing.assert_allclose(found.scores["run"], found.scores["encoder"], rtol=1e-6)
    assert found.winner in order and "over 2 seeds, which is not told apart" in found.says
    assert f"{found.winner} won on validation: {found.scores[found.winner].mean():.4f} against" in str(found.table())
    moved = partition.flatten(found.runs["run"].params)["shared/encoder/stage_0/dense/kernel"]
    assert not np.allclose(moved[0], run.params["shared"]["encoder"]["stage_0"]["dense"]["kernel"])


def test_errors(run, target, ranked):
    with pytest.raises(ValueError, match=r"unknown score 'logme'; did you mean 'log_me'\? \(ridge, knn"):
        mtl.transfer.rank({"run": run}, target, scores_of=("logme",))
    with pytest.raises(ValueError, match="unknown option of score 'knn' 'neighbours'"):
        mtl.transfer.rank({"run": run}, target, scores_of=("knn(neighbours=3)",))
    with pytest.raises(ValueError, match="candidate 'x': features are not finite in 68 of 68 rows, first in row 0"):
        mtl.transfer.rank({"x": lambda x: np.full((len(x), 2), np.nan)}, tiny.data(), tasks=["color", "price", "sold"],
                          scores_of="ridge")  # fmt: skip
    with pytest.raises(ValueError, match="candidate 'run': inputs have the shapes"):
        wide = mtl.data.from_arrays(np.ones((40, 7), np.float32) * np.arange(40)[:, None], {"a": np.arange(40) % 2})
        mtl.transfer.rank({"run": run}, wide)
    with pytest.raises(ValueError, match="candidate 'e' is Encoder|candidate 'e' is a Encoder"):
        mtl.transfer.rank({"e": run.model.encoder}, target)
    with pytest.raises(FileNotFoundError, match="there is no nowhere: give a run.s folder, or a pretrained model.s"):
        mtl.transfer.rank(["nowhere"], target)
    with pytest.raises(ValueError, match="has no validation rows"):
        mtl.transfer.recommend(ranked, dataclasses.replace(target, val=None))
    with pytest.raises(ValueError, match="candidate '.*' is a function, whose parameters cannot be fine-tuned"):
        mtl.transfer.recommend(ranked, target, top=4)
    tokens = mtl.data.from_arrays(np.ones((30, 4)) * np.arange(30)[:, None],
                                  {"m": np.arange(60).reshape(30, 2) % 3 == 0}, kinds={"m": "multilabel"})  # fmt: skip
    with pytest.raises(ValueError, match="task 'm' is multilabel; scores read classification, binary, regression"):
        mtl.transfer.rank({"x": np.asarray}, tokens)


def test_a_candidate_with_inputs_per_task_reads_common_ones():
    data = tiny.per_task_data()
    run = tiny.fit(tiny.model(data.tasks), data, num_steps=5, eval_every=5)
    x = np.asarray(data.train.inputs["a"])
    seen = ranking.see("run", run, x)
    assert set(seen.features) == {""} and set(seen.probabilities) == {"b"}
    expected, _, _ = run.model.encode(
        run.variables, mtl.Batch(PerTask({"a": jnp.asarray(x), "b": jnp.asarray(x)}), {}, {}), train=False, rng=None
    )  # fmt: skip
    np.testing.assert_allclose(seen.features[""], jax.device_get(expected["a"]), rtol=1e-5, atol=1e-6)
