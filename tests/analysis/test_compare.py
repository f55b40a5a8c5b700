"""Comparing: rows, the choice of static weights by validation alone, and going on after an interruption."""

import dataclasses
import json

import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, parallel
from mtl_jax.analysis import compare as room
from mtl_jax.training.result_folders import file_name
from tests import tiny

SHORT = {"num_steps": 40, "batch_size": 16, "steps_per_dispatch": 10, "eval_every": 20, "log_every": 10}
ENCODER = mtl.encoders.mlp(features=(8, 6))


def comparing(methods, workdir=None, **options):
    mesh = parallel.make_mesh(1)
    options = {**SHORT, "optimizer": "adam(0.02)", **options}
    return mtl.compare(ENCODER, tiny.data(), methods, seeds=(0, 1), workdir=workdir, mesh=mesh, **options)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def found(workdir):
    return comparing(["equal", "upgrad"], workdir, static=2)


def test_every_method_has_a_row_and_every_seed_a_value(found):
    assert list(found.test) == ["single-task", "equal", "upgrad", "best static weights"]
    for result in found.test.values():
        assert np.shape(result["color"]["accuracy"]) == (2,) and set(result) == {"color", "price", "sold"}
    header, _, *rows = found.table().splitlines()
    assert "Delta_m %" in header and "mean rank" in header and "ms/step" in header
    assert [r.split("  ")[0] for r in rows[:5]] == [*found.test, "best constant"]
    ranks = found.content()["mean_rank"]
    assert sum(ranks.values()) == pytest.approx(1 + 2 + 3 + 4)
    assert all(m > 0 for m in found.milliseconds.values())


def test_a_row_is_what_fit_finds(found):
    run = tiny.fit(tiny.model(tiny.data().tasks), balancer="upgrad", seed=(0, 1), optimizer="adam(0.02)", **SHORT)
    expected = run.evaluate(tiny.data().test)
    for task, metrics in expected.items():
        for name, values in metrics.items():
            np.testing.assert_allclose(found.test["upgrad"][task][name], values, rtol=1e-4, err_msg=f"{task} {name}")


def test_static_weights_are_chosen_on_validation(found, workdir):
    tried = [json.loads((workdir / "methods" / name / "result.json").read_text())
             for name in map(file_name, ("static 0", "static 1"))]  # fmt: skip
    best = int(np.argmax([np.mean(t["validation"]) for t in tried]))
    assert found.test["best static weights"] == tried[best]["test"]
    weights = room.static_weights(3, 2)[best]
    assert found.chosen["best static weights"] == f"fixed(weights={weights!r})" and sum(weights) == pytest.approx(
        3, abs=1e-3
    )


def test_it_goes_on_where_it_was(found, workdir, monkeypatch):
    """What is there is read, not trained again; a method that is new is trained."""
    trained = []
    real = room.fit
    monkeypatch.setattr(room, "fit", lambda *a, **k: trained.append(k["balancer"]) or real(*a, **k))
    again = comparing(["equal", "upgrad", "mgda"], workdir)
    assert trained == [["mgda"]]
    assert again.test["equal"] == found.test["equal"] and again.test["upgrad"] == found.test["upgrad"]


def test_any_sharing_can_be_compared():
    found = comparing({"half": ("hard(shared_stages=1)", "equal")}, baseline=False)
    assert list(found.test) == ["half"] and "Delta_m" not in found.table()


def test_a_task_without_a_metric_is_left_out_and_named():
    """All labels of b are 0 in test, those of c in validation: means are over the others, and JSON holds no nan."""
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    sign = (x[:, 1] > 0) * 1.0
    targets = {"a": x[:, 0], "b": np.where(np.arange(120) < 100, sign, 0), "c": sign.copy()}
    targets["c"][80:100] = 0
    parts = [
        (x[rows], {t: y[rows] for t, y in targets.items()}) for rows in (slice(80), slice(80, 100), slice(100, 120))
    ]
    data = mtl.data.from_arrays(*parts[0], val=parts[1], test=parts[2], kinds={"b": "binary", "c": "binary"})
    found = mtl.compare(ENCODER, data, ["equal"], seeds=(0, 1), mesh=parallel.make_mesh(1), **SHORT)
    content = json.loads(json.dumps(found.content(), allow_nan=False))
    assert content["test"]["equal"]["b"]["auroc"] == [None, None] and content["constant"]["b"]["auroc"] is None
    a, c = ({m: np.array(found.test[m][t][k]) for m in found.test} for t, k in (("a", "mae"), ("c", "auroc")))
    gains = [(a["single-task"].mean() - a["equal"]) / a["single-task"].mean(),
             (c["equal"] - c["single-task"].mean()) / c["single-task"].mean()]  # fmt: skip
    np.testing.assert_allclose(content["delta_m"]["equal"], 100 * np.mean(gains, 0), rtol=1e-6)
    closing = found.table().splitlines()[5:]
    assert "left out of means and ranks: b has no auroc (every label is 0 in test)" in closing
    assert closing[-1] == "no say in choosing by validation: c (every label is 0 in val)"
    assert all(0 < s < 1 for s in found.validation["equal"])


def test_a_plot(found, tmp_path):
    found.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_methods_of_one_shape_share_a_program():
    """And what the state carries does not matter: all static weightings are one program, UPGrad and MGDA another."""
    named = {n: ("hard", n) for n in ("equal", "upgrad", "mgda", "uncertainty", "gradvac")}
    named |= {str(w): ("hard", f"fixed(weights=({w}, 1.0, 1.0))") for w in (1.0, 2.0, 3.0)}
    named["other"] = ("mmoe", "upgrad")
    found = [list(group) for group in room.groups(named, 3, True)]
    assert found == [["equal"], ["upgrad", "mgda"], ["uncertainty"], ["gradvac"], ["1.0", "2.0", "3.0"], ["other"]]
    assert len(room.groups(named, 3, False)) == len(named)


def test_errors(workdir):
    with pytest.raises(ValueError, match="unknown balancer 'upgard'; did you mean 'upgrad'"):
        comparing(["equal", "upgard"])
    with pytest.raises(ValueError, match="comparing needs a validation and a test split"):
        mtl.compare(ENCODER, tiny.data().take(20), ["equal"])
    with pytest.raises(ValueError, match="holds a run of another config; it differs in .*batch_size: 16 -> 8"):
        comparing(["equal"], workdir, batch_size=8)


def test_results_of_anything_else_are_not_taken_for_these(found, workdir):
    """Other labels, another rate inside an object, fewer steps; more steps train on."""
    split = tiny.data().train
    other = dataclasses.replace(
        tiny.data(), train=split._replace(targets={**split.targets, "price": -split.targets["price"]})
    )
    common = {"seeds": (0, 1), "workdir": workdir, "mesh": parallel.make_mesh(1), "optimizer": "adam(0.02)", **SHORT}
    with pytest.raises(ValueError, match="it differs in data: labels of task 'price' of train differ"):
        mtl.compare(ENCODER, other, ["equal"], **common)
    with pytest.raises(ValueError, match="it differs in num_steps: 40 -> 20"):
        comparing(["equal"], workdir, num_steps=20)
    with pytest.raises(ValueError, match="it differs in patience: None -> 2"):
        comparing(["equal"], workdir, patience=2)


def test_a_rate_inside_an_optimizer_counts(tmp_path):
    options = {"baseline": False, "num_steps": 20}
    short = comparing(["equal"], tmp_path, optimizer=optax.adam(0.02), **options)
    with pytest.raises(ValueError, match="it differs in optimizer: learning_rate 0.02 -> 0.1"):
        comparing(["equal"], tmp_path, optimizer=optax.adam(0.1), **options)
    longer = comparing(["equal"], tmp_path, optimizer=optax.adam(0.02), **{**options, "num_steps": 40})
    assert longer.test["equal"] != short.test["equal"]


class Falling:
    """A schedule of one's own, as an object."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate / (step + 1)


def test_what_lies_inside_ones_own_objects_counts(tmp_path):
    """A rate in an attribute of an optimizer's schedule, and one in the closure of a method."""
    options = {"baseline": False, "num_steps": 10, "eval_every": 10, "optimizer": optax.sgd(Falling(0.1))}
    rows = {"mine": rated(1.0)}
    first = comparing(rows, tmp_path, **options)
    assert comparing(rows, tmp_path, **options).validation == first.validation
    with pytest.raises(ValueError, match="it differs in optimizer: rate 0.1 -> 0.2"):
        comparing(rows, tmp_path, **{**options, "optimizer": optax.sgd(Falling(0.2))})
    with pytest.raises(ValueError, match="it differs in balancer: rate 1.0 -> 2.0"):
        comparing({"mine": rated(2.0)}, tmp_path, **options)
    with pytest.raises(ValueError, match="it differs in balancer: 'given as an object' -> 'equal\\(\\)'"):
        comparing({"mine": balancing.equal()}, tmp_path, **options)


def rated(rate):
    equal = balancing.equal()

    def update(signal, state, *, mask, key):
        result, state = equal.update(signal, state, mask=mask, key=key)
        return result._replace(weights=rate * result.weights), state

    return equal._replace(update=update, spec=None)
