"""Records of many tasks: small on disk, whole when read, and files of the older form go on."""

import json
import types

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.reporting import many
from mtl_jax.training import record_lines, records
from mtl_jax.training.writers.lines import Lines
from tests import tiny

NAMES = [f"school_{i:03d}" for i in range(139)]


def some_records(members=()):
    """A training and a validation record of 139 tasks, some of which lack a metric, a value or common steps."""
    draw = np.random.default_rng(0)

    def values():
        return {n: records.plain(v) for n, v in zip(NAMES, draw.normal(size=(139, *members)), strict=True)}

    cosines = np.round(draw.normal(size=(*members, 139, 139)), 4)
    cosines = np.round((cosines + np.swapaxes(cosines, -1, -2)) / 2, 4)
    cosines[..., 3, 7] = cosines[..., 7, 3] = np.nan
    train = {"step": 5, "split": "train", "losses": values(), "weights": values(), "cosines": records.plain(cosines),
             "conflict": 0.25, "seconds": 1.5}  # fmt: skip
    rmse, auroc = values(), values()
    metrics = {n: {"rmse": rmse[n], "auroc": auroc[n]} if i % 2 else {"rmse": rmse[n]} for i, n in enumerate(NAMES)}
    metrics[NAMES[4]]["rmse"] = None
    val = {"step": 5, "split": "val", "losses": values(), "scores": values(), "metrics": metrics, "seconds": 2.5}
    return [train, val]


@pytest.mark.parametrize("members", [(), (2,)])
def test_records_come_back_as_they_were(members, tmp_path):
    given = some_records(members)
    for record in given:
        records.append(tmp_path / "a.jsonl", record)
    assert records.read_history(tmp_path / "a.jsonl") == given
    first, *lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(first) == {"tasks": NAMES} and len(lines) == 2  # the names stand once
    assert not any("school_" in line for line in lines)
    assert len(json.loads(lines[0])["losses"]) == 139


def test_a_validation_record_is_as_small_as_its_numbers(tmp_path):
    val = some_records()[1]
    numbers = [*val["losses"].values(), *val["scores"].values()]
    numbers += [v for of_task in val["metrics"].values() for v in of_task.values()]
    records.append(tmp_path / "a.jsonl", val)
    line = (tmp_path / "a.jsonl").read_text().splitlines()[1]
    assert len(line) < sum(len(json.dumps(v)) + 2 for v in numbers) + 139 * 2.5 + 150  # and which tasks have auroc
    assert len(line) < 0.7 * len(json.dumps(val))


def test_up_to_twenty_tasks_are_named_in_each_record(tmp_path):
    val = some_records()[1]
    few = {k: {n: v[n] for n in NAMES[:20]} if isinstance(v, dict) else v for k, v in val.items()}
    records.append(tmp_path / "a.jsonl", few)
    assert (tmp_path / "a.jsonl").read_text() == json.dumps(few) + "\n"


def test_cosines_that_are_not_symmetric_stay_whole(tmp_path):
    train = some_records()[0]
    train["cosines"][2][1] += 0.5
    records.append(tmp_path / "a.jsonl", train)
    assert records.read_history(tmp_path / "a.jsonl") == [train]


def test_both_forms_in_one_file_are_read_and_written_anew_in_one(tmp_path):
    """As a file of an earlier version that a run goes on with."""
    old, new, later = some_records()[0], some_records()[1], some_records()[1] | {"step": 10}
    path, lines = tmp_path / "metrics.jsonl", Lines(tmp_path)
    path.write_text(json.dumps(old) + "\n")
    lines.write(new)
    lines.write(later)
    assert records.read_history(path) == [old, new, later]
    kept = records.history_until(path, 5)
    assert kept == [old, new]
    lines.begin(types.SimpleNamespace(history=kept), 5)
    assert path.read_text() == record_lines.text_of([old, new]) and path.read_text().count("school_000") == 1
    lines.write(later)
    assert records.read_history(path) == [old, new, later] and path.read_text().count("school_000") == 1


def test_a_file_that_a_kill_cut_short_has_the_records_before(tmp_path):
    given = [r | {"step": step} for step in (5, 10) for r in some_records()]
    whole, path = record_lines.text_of(given).encode(), tmp_path / "a.jsonl"
    ends = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])  # of the names, then of the records
    for at in (10, ends[0] - 1, ends[0], ends[0] + 50, ends[1] - 2, ends[1], ends[3] + 7):
        path.write_bytes(whole[:at])
        assert records.read_history(path) == given[: max(0, int((ends <= at).sum()) - 1)]


@pytest.mark.parametrize("lines, message", [
    ([{"losses": [1, 2]}], "line 1 is damaged: its field 'losses' is a list, and no line before names the tasks"),
    ([{"tasks": ["a", "b"]}, {"losses": [1, 2, 3]}], "line 2 is damaged: it does not hold a value for each of 2 tasks"),
    ([{"tasks": ["a", "b"]}, {"losses": [1, 2], "metrics": {"mae": [1]}}], "line 2 is damaged: it does not hold a val"),
    ([{"tasks": ["a", "b"]}, {"losses": [1, 2], "metrics": {"mae": {"tasks": [9], "values": [1]}}}], "line 2 is damag"),
    ([{"tasks": ["a", 5]}], "line 1 is damaged: it has no field 'step'"),
])  # fmt: skip
def test_damaged_lines_are_named(lines, message, tmp_path):
    path = tmp_path / "a.jsonl"
    common = {"step": 5, "split": "val", "seconds": 1.0}
    path.write_text("".join(json.dumps(x if "tasks" in x else common | x) + "\n" for x in lines))
    with pytest.raises(ValueError, match=message):
        records.read_history(path)


def test_a_run_of_many_tasks_goes_on_from_a_file_of_either_form(tmp_path, monkeypatch):
    """Three tasks are many here."""
    model = tiny.model(tiny.data().tasks)
    first = tiny.fit(model, num_steps=10, workdir=tmp_path)  # with names, as earlier versions wrote all
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step"')
    monkeypatch.setattr(many, "MANY", 2)
    second = tiny.fit(model, num_steps=20, workdir=tmp_path)
    assert second.resumed_from == 10 and second.history[: len(first.history)] == first.history
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"tasks": ["color", "price", "sold"]} and all(isinstance(x["losses"], list) for x in lines[1:])
    loaded = mtl.load_run(tmp_path)
    assert loaded.history == second.history and loaded.history[-1]["metrics"].keys() == {"color", "price", "sold"}
    assert tiny.fit(model, num_steps=30, workdir=tmp_path).resumed_from == 20
    second.save(tmp_path / "saved")
    assert mtl.load_run(tmp_path / "saved").history == second.history
