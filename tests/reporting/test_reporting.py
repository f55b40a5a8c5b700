"""Tables, and Delta_m against the published formula worked by hand."""

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.reporting import compare
from mtl_jax.reporting.summary import metrics_table, summarize
from tests import tiny

TASKS = [mtl.Task("a", "classification", 3), mtl.Task("b", "regression")]


def test_delta_m_by_hand():
    """Maninis et al. (2019), equation 4: accuracy 0.8 -> 0.9 is +12.5%, an error 2 -> 3 -50%; the mean is -18.75%."""
    single = {"a": {"accuracy": [0.7, 0.9]}, "b": {"mae": [1.0, 3.0]}}
    found = {"a": {"accuracy": [0.9, 0.8]}, "b": {"mae": [3.0, 2.0]}}
    np.testing.assert_allclose(compare.delta_m(TASKS, found, single), [-18.75, 0.0], atol=1e-12)
    # Nothing is relative to 0: b is left out.
    np.testing.assert_allclose(compare.delta_m(TASKS, found, {**single, "b": {"mae": [0.0]}}), [12.5, 0], atol=1e-12)


def test_the_table_of_methods():
    results = {
        "single": {"a": {"accuracy": [0.8, 0.8]}, "b": {"mae": [2.0, 2.0]}},
        "together": {"a": {"accuracy": [0.9, 0.7]}, "b": {"mae": [1.0, 1.0]}},
    }
    text = compare.methods_table(TASKS, results, "single", {"seconds": {"single": "3", "together": "2"}})
    header, _, single, together = text.splitlines()
    assert "a accuracy ↑" in header and "b mae ↓" in header and "Delta_m %" in header
    assert single.split()[0] == "single" and "0.800 ± 0.000" in single and single.endswith("3")
    assert "0.800 ± 0.141" in together and "1.000 ± 0.000" in together and "25.00 ± 8.84" in together


NAN = float("nan")


def test_means_and_ranks_are_over_what_has_a_value():
    """Of b nothing is known; of a the gain is 12.5% in one run, and in one nothing is known."""
    single = {"a": {"accuracy": [0.8, 0.8]}, "b": {"mae": [NAN, None]}}
    found = {"a": {"accuracy": [0.9, NAN]}, "b": {"mae": [NAN, NAN]}}
    gain = compare.delta_m(TASKS, found, single)
    np.testing.assert_allclose(gain, [12.5, np.nan])
    results = {"single": single, "together": found, "broken": {"a": {"accuracy": [NAN, NAN]}, "b": found["b"]}}
    assert compare.mean_ranks(TASKS, results) == {"single": 2.0, "together": 1.0, "broken": 3.0}
    text = compare.methods_table(TASKS, results, "single", reasons={"b": "no labels in test"})
    _, _, _, together, broken, *closing = text.splitlines()
    assert together.split() == ["together", "0.900", "-", "12.50"] and broken.split() == ["broken", "-", "-", "-"]
    assert closing == [
        "left out of means and ranks: b has no mae (no labels in test)",
        "left out of means, and last in ranks where in all runs: together has no accuracy of a in 1 of 2 runs; "
        "broken has no accuracy of a in 2 of 2 runs",
    ]
    nothing = {"single": {"a": {"accuracy": [NAN]}, "b": {"mae": [NAN]}}}
    assert np.isnan(compare.mean_ranks(TASKS, nothing)["single"]) and " -" in compare.methods_table(TASKS, nothing)


def test_a_baseline_below_zero_is_no_unit():
    """A gain relative to an r2 of -0.5 would have the wrong sign."""
    task = (mtl.Task("b", "regression", metrics=("r2",)),)
    results = {"single": {"b": {"r2": [-0.5]}}, "together": {"b": {"r2": [0.5]}}}
    assert np.isnan(compare.delta_m(task, results["together"], results["single"])).all()
    closing = compare.methods_table(task, results, "single").splitlines()[-1]
    assert closing == "left out of Delta_m, which is relative to a value above 0: b (r2 of single is -0.5)"


def test_what_is_worse_than_a_constant_is_marked():
    results = {
        "single": {"a": {"accuracy": [0.4, 0.7]}, "b": {"mae": [2.0, 2.0]}},
        "together": {"a": {"accuracy": [0.4, 0.5]}, "b": {"mae": [1.5, 1.0]}},
    }
    constant = {"a": {"accuracy": 0.5}, "b": {"mae": 1.5}}
    text = compare.methods_table(TASKS, results, "single", {"seconds": {"single": "3"}}, constant=constant)
    _, _, single, together, floor, closing = text.splitlines()
    assert single.count("!") == 1 and "2.000 ± 0.000 !" in single
    assert together.count("!") == 1 and "0.450 ± 0.071 !" in together
    # By hand: (0.5 - 0.55) / 0.55 = -9.09% and (2 - 1.5) / 2 = 25%.
    assert floor.split() == ["best", "constant", "0.500", "1.500", "7.95"]
    assert closing == "! worse than the best constant: single: b; together: a"
    shown = metrics_table({"b": {"loss": 1.1, "mae": 1.2}}, TASKS, {"b": {"loss": 1.0, "mae": 1.5}}).splitlines()
    assert "1.1000 !" in shown[2] and "!" not in shown[3] and shown[-1].endswith("training labels: b: loss")
    assert "1.1500 ± 0.0707" in metrics_table({"b": {"mae": [1.1, 1.2]}})


@pytest.mark.smoke
def test_describe_says_who_owns_what():
    data = tiny.data()
    text = str(mtl.describe(tiny.model(data.tasks), data, freeze="shared/encoder/stage_0/.*"))
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "(5, 8)" in lines["shared/encoder/stage_0/dense/kernel"]
    assert lines["shared/encoder/stage_0/dense/kernel"].split()[-1] == "frozen"
    assert lines["tasks/price/head/out/kernel"].split()[-2:] == ["price", "yes"]
    count = 5 * 8 + 8 + 8 * 6 + 6 + (6 * 3 + 3) + 2 * (6 + 1)
    assert f"total: {count} parameters, {count - 48} trainable" in text
    assert "task price: regression" in text and "FLOPs per row" in text
    assert repr(mtl.describe(tiny.model(data.tasks), data)).startswith("path")


def test_a_summary_counts_and_measures():
    data = tiny.data()
    run = tiny.fit(tiny.model(data.tasks), num_steps=10, freeze="shared/encoder/stage_0/.*")
    summary = summarize(run, data)
    assert summary["steps"] == 10 and set(summary["best_steps"]) == {"color", "price", "sold"}
    assert summary["parameters"]["total"] - summary["parameters"]["trainable"] == 48
    assert summary["parameters"]["price"] == 7 and summary["flops"] > 100 and summary["peak_bytes"] > 1000
    assert summary["constant"]["test"]["sold"]["auroc"] == 0.5 and summary["without_say"] == {}
    assert summary["test"] == run.evaluate(data.test) and "price" in metrics_table(summary["test"])


def test_many_tasks_share_a_column():
    """The mean over tasks, seed by seed; Delta_m is that of all tasks."""
    tasks = tuple(mtl.Task(f"t{i}", "binary") for i in range(8))
    results = {m: {t.name: {"auroc": [0.1 * k + 0.013 * i, 0.2 * k]} for i, t in enumerate(tasks)}
               for k, m in ((4, "single"), (2, "together"))}  # fmt: skip
    text = compare.methods_table(tasks, results, "single", {"ms": {"single": "3"}})
    header, _, single, together = text.splitlines()
    assert "mean over 8 tasks: auroc" in header and "Delta_m %" in header and "t3" not in header
    mean = np.mean([0.4 + 0.013 * i for i in range(8)])
    assert f"{np.mean([mean, 0.8]):.3f}" in single and single.rstrip().endswith("3")
    assert f"{compare.delta_m(tasks, results['together'], results['single']).mean():.2f}" in together
    for found in results.values():
        found["t7"] = {"auroc": [None, None]}
    constant = {t.name: {"auroc": 0.5 if t.name != "t7" else NAN} for t in tasks}
    text = compare.methods_table(tasks, results, "single", constant=constant)
    header, _, single, together, floor, worse, absent = text.splitlines()
    assert "mean over 7 tasks: auroc" in header and floor.split()[2] == "0.500" and together.count("!") == 1
    assert worse.startswith("! worse than the best constant: together: t0, t1")
    assert absent == "left out of means and ranks: t7 has no auroc"


def test_describe_counts_labelled_steps():
    masks = np.asarray([[True, True, False], [False, False, False]])
    inputs = {"tokens": np.ones((2, 3), np.int32), "mask": np.ones((2, 3), bool)}
    task = mtl.Task("tag", "tagging", classes=("a", "b"))
    data = mtl.data.from_arrays(inputs, {"tag": np.zeros((2, 3), int)}, masks={"tag": masks}, kinds={"tag": task},
                                val=0, test=0)  # fmt: skip
    model = mtl.sharing.hard(mtl.encoders.rnn(features=(2,), vocabulary=3, embedding=2, pool="none"), data.tasks)
    assert "task tag: tagging(2), 50% of 2 rows labelled, at 2 positions" in str(mtl.describe(model, data))
