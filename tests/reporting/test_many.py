"""Many tasks in short: the numbers by hand, who is named, and that nothing printed grows with the number of tasks."""

import warnings

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import parts
from mtl_jax.reporting import compare, many
from mtl_jax.reporting.panels import figure_of, panels_of
from mtl_jax.reporting.summary import metrics_table
from mtl_jax.training import identity
from mtl_jax.training.progress import shown
from mtl_jax.uncertainty import coverage_table

TASKS = tuple(mtl.Task(f"school_{i:03d}", "regression", metrics=("rmse", "r2")) for i in range(139))
LINES = 20  # that a screen of many tasks takes at most


def results(shift=0.0):
    """{task: metrics}: an rmse of 1 to 139 + shift; an r2 of which every tenth task has none."""
    return {
        t.name: {"rmse": [i + 1 + shift, i + 3 + shift], "r2": None if i % 10 == 0 else 1 - i / 100}
        for i, t in enumerate(TASKS)
    }


def test_a_summary_by_hand():
    found = many.summary({"a": 3.0, "b": None, "c": [1.0, None, 2.0], "d": float("inf"), "e": 0.5, "f": 3.0})
    assert (found.count, found.mean, found.absent) == (4, 2.0, ("b", "d"))
    assert found.quartiles == (0.5, 1.25, 2.25, 3.0, 3.0)  # of 0.5, 1.5, 3, 3
    assert found.worst == (("a", 3.0), ("f", 3.0), ("c", 1.5), ("e", 0.5))
    assert many.summary({"a": 3.0, "c": 1.0}, higher_is_better=True).worst[0] == ("c", 1.0)
    assert many.in_a_line({"a": 3.0, "b": None, "c": 1.0}) == "mean 2, 1 to 3, worst a 3, 1 without a value"
    assert many.in_a_line({"a": 3.0, "c": 3.0}) == "all 3" and many.in_a_line({"a": None}) == "no values"


def test_up_to_twenty_have_a_line_each():
    few = {f"t{i}": float(i) for i in range(20)}
    assert shown(few).count("t") == 20 and metrics_table({t: {"mae": v} for t, v in few.items()}).count("\n") == 21
    text = shown({t.name: r["rmse"] for t, r in zip(TASKS, results().values(), strict=True)})
    assert text == "losses of 139 tasks: mean 71, 2 to 140, worst school_138 140"


def test_metrics_of_many_tasks():
    constant = {t.name: {"rmse": 100.0, "r2": None if i % 10 == 0 else 0.0} for i, t in enumerate(TASKS)}
    lines = metrics_table(results(), TASKS, constant).splitlines()
    assert len(lines) <= LINES
    assert lines[0].split() == ["metric", "tasks", "mean", *many.QUARTILES, "best", "constant"]
    # rmse by run: means of 1..139 and of 3..141, which are 70 and 72.
    assert lines[2].split() == ["rmse", "139", "71.0000", "±", "1.4142", "2.0000", "36.5000", "71.0000", "105.5000",
                                "140.0000", "100.0000"]  # fmt: skip
    assert lines[3].split()[:2] == ["r2", "125"]
    assert "worst rmse: school_138 140.0000, school_137 139.0000" in lines[4]
    assert any(line.startswith("worst r2: school_138 -0.3800") for line in lines)
    assert "no r2: school_000, school_010, school_020, school_030, school_040 and 9 more" in lines
    assert lines[-1].startswith("! worse than the best constant of the training labels: rmse of 40 tasks (school_099, ")
    worse = results(shift=50)
    assert "121.0000 ± 1.4142 !" in metrics_table(worse, TASKS, constant)
    assert "worst" not in metrics_table(results())  # without tasks it is not known which end is the worse


def test_a_comparison_of_many_tasks():
    single, together = results(), results(shift=-0.5)
    for name in ("school_003", "school_077"):
        together[name]["rmse"] = [None, 1.0]
    for task in TASKS[100:130]:
        single[task.name]["rmse"] = together[task.name]["rmse"] = [None, None]
    constant = {t.name: {"rmse": 40.0} for t in TASKS}
    reasons = dict.fromkeys([t.name for t in TASKS[100:130]], "no labels in test")
    text = compare.methods_table(TASKS, {"single": single, "together": together}, "single", {"ms": {"single": "3"}},
                                 constant=constant, reasons=reasons)  # fmt: skip
    lines = text.splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) < 400
    assert "mean over 109 tasks: rmse ↓" in lines[0] and "min 25% 50% 75% max" in lines[0] and "worst" in lines[0]
    assert "2 29 56 83 140" in lines[2] and "school_138 140, school_137 139" in lines[2]
    closing = lines[5:]
    assert closing[0].startswith("! worse than the best constant: single: school_039, ")
    assert closing[1] == (
        "left out of means and ranks: 30 tasks (no rmse (no labels in test)): school_100, school_101, school_102, "
        "school_103, school_104 and 25 more"
    )
    assert closing[2].endswith("together has no rmse of school_003 in 1 of 2 runs; together has no rmse of school_077 "
                               "in 1 of 2 runs")  # fmt: skip


def test_two_kinds_of_many_tasks_have_a_mean_each():
    tasks = (*TASKS[:15], *(mtl.Task(f"b{i}", "binary") for i in range(15)))
    found = {t.name: {"rmse": [2.0], "auroc": [0.75 if i else 0.5]} for i, t in enumerate(tasks)}
    header, _, row, *_ = compare.methods_table(tasks, {"hard": found}).splitlines()
    assert (
        "mean over 15 tasks: rmse ↓" in header and "mean over 15 tasks: auroc ↑" in header and "worst auroc" in header
    )
    assert row.split()[:3] == ["hard", "2.000", "0.750"]


def test_reasons_are_grouped_by_what_they_say():
    assert many.by_reason({"a": "no labels", "b": "alike"}) == "a (no labels); b (alike)"
    reasons = {t.name: "no labels in val" if i % 3 else f"every label is {i} in val" for i, t in enumerate(TASKS)}
    text = many.by_reason(reasons)
    assert text.startswith(
        "92 tasks (no labels in val): school_001, school_002, school_004, school_005, school_007 and 87"
    )
    assert text.endswith("; 43 more for other reasons") and len(text) < 500
    assert many.by_reason({}) == ""


def test_one_warning_speaks_for_many_tasks():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        many.warn_of({t: f"task {t!r} is bad" for t in "abc"}, "abcd", stacklevel=1)
        assert [str(w.message) for w in caught] == ["task 'a' is bad", "task 'b' is bad", "task 'c' is bad"]
        many.warn_of({t.name: f"task {t.name!r} is bad" for t in TASKS[:7]}, TASKS, stacklevel=1)
        many.warn_of({}, TASKS, stacklevel=1)
    assert len(caught) == 4
    assert str(caught[-1].message).startswith(
        "task 'school_000' is bad (so it is with 6 more of 139 tasks: school_001, school_002, "
    )


def test_a_description_of_many_tasks():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)).astype(np.float32), draw.normal(size=(24, 40))
    y[5, 4:] = np.nan
    data = mtl.data.from_arrays(x, {f"t{i}": v for i, v in enumerate(y)}, val=0, test=0)
    model = mtl.sharing.hard(mtl.encoders.linear(features=2), data.tasks)
    lines = str(mtl.describe(model, data, freeze="tasks/t3/.*")).splitlines()
    rows = {line.split()[0]: line.split() for line in lines if "/" in line}
    assert len(lines) <= LINES and rows["tasks/*/head/out/kernel"][1:] == ["(2,", "1)", "46", "23", "tasks", "yes"]
    assert rows["tasks/t3/head/out/kernel"][-2:] == ["t3", "frozen"] and "24 tasks (all 3): 72 (90%)" in lines
    assert lines[-1] == "24 tasks: regression; labelled rows: mean 38, 4 to 40, fewest t5 4, t0 40, t1 40"
    assert repr(data).startswith("Dataset('arrays', tasks=['t0', 't1', 't2' and 21 more], rows=")


def test_coverage_of_many_tasks():
    found = {t.name: {"coverage": 0.8 + i / 1000, "size": None if i == 3 else 2.0 + i} for i, t in enumerate(TASKS)}
    lines = coverage_table(found, 0.9).splitlines()
    assert len(lines) == 2 and lines[0].startswith(
        "139 tasks, promised 90%; inside: mean 86.9%, 80.0% to 93.8%, least sc"
    )
    assert "school_000 80.0%, school_001 80.1%" in lines[0] and "largest school_138 140" in lines[1]


def test_a_figure_of_many_tasks_has_a_panel_per_metric():
    found = {"hard": results(), "soft": results(shift=2)}
    constant = {t.name: {"rmse": 80.0} for t in TASKS}
    (panel,) = panels_of(TASKS, found, constant)
    assert panel.title == "139 tasks: rmse ↓" and panel.constant == 80 and panel.points["soft"][0] == 4
    assert len(panels_of(TASKS[:20], found, {})) == 20
    pytest.importorskip("matplotlib")
    assert len(figure_of([panel]).axes) == 1


def test_messages_do_not_list_hundreds_of_names():
    names = [t.name for t in TASKS]
    error = parts.unknown("task", "school_138x", names)
    assert str(error).startswith("unknown task 'school_138x'; did you mean 'school_138'? (school_000, ")
    assert str(error).endswith(", ... 139 in all)") and len(str(error)) < 250
    new = [*names[2:], "more"]
    assert (
        identity._tasks_changed(names, new) == "tasks: 139 -> 138, without 2 (school_000, school_001) and with 1 (more)"
    )
    assert identity._tasks_changed(names, names[::-1]) == "tasks: 139 -> 139, in another order"
