"""Writers: what they are given, and where it ends up. Of wandb and mlflow, what they are called with is looked at."""

import json
import struct
import sys
import types

import pytest

from mtl_jax.training import writers
from mtl_jax.training.writers.base import numbers_of
from tests import tiny

SHORT = {"num_steps": 10, "eval_every": 5, "log_every": 5}
RECORD = {
    "step": 5, "split": "val", "losses": {"a": 0.5, "b": None}, "seconds": 1.5, "cosines": [[1.0]],
    "conflict": [0.0, 1.0], "metrics": {"a": {"r2": 0.1}},
}  # fmt: skip


class Listed:
    """A writer of one's own."""

    def __init__(self):
        self.seen = []

    def begin(self, run, step):
        self.seen.append(("begin", step, run.config["balancer"]))

    def write(self, record):
        self.seen.append((record["step"], record["split"]))

    def close(self):
        self.seen.append("close")


def fit(**arguments):
    return tiny.fit(tiny.model(tiny.data().tasks), **{**SHORT, **arguments})


def test_numbers_of_a_record():
    assert numbers_of(RECORD) == {
        "val/losses/a": 0.5, "val/seconds": 1.5, "val/conflict/0": 0.0, "val/conflict/1": 1.0, "val/metrics/a/r2": 0.1
    }  # fmt: skip


def test_what_is_no_writer_is_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown writer 'tensorbord'; did you mean 'tensorboard'"):
        fit(writers="tensorbord")
    with pytest.raises(ValueError, match="an entry of writers is 3; it must be a writer, its text"):
        fit(writers=[3])
    with pytest.raises(ValueError, match="an entry of writers is Listed itself, which was not called"):
        fit(writers=Listed)
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
        with pytest.raises(ImportError, match=rf"writer '{name}' needs .*pip install 'mtl_jax\[{name}\]'"):
            fit(writers=name, workdir=tmp_path)
    assert not list(tmp_path.iterdir())


class Events:
    """tensorboardX, as far as it is used."""

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge, self.scalars, self.open = folder, purge_step, [], True
        Events.made.append(self)

    def add_scalar(self, *given):
        self.scalars.append(given)

    def close(self):
        self.open = False


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    writer = writers.TensorBoard(tmp_path)
    writer.begin(None, 0)
    writer.write(RECORD)
    writer.close()
    content, found, at = next(tmp_path.iterdir()).read_bytes(), {}, 0
    while at < len(content):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
        at += length + 16
    assert found[("val/losses/a", 5)] == 0.5 and len(found) == 5


class Client:
    """MlflowClient, as far as it is used."""

    calls: list

    def __init__(self, tracking_uri=None):
        del tracking_uri

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "7"

    def create_run(self, place, run_name):
        Client.calls.append(("create", place, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    def __getattr__(self, name):
        return lambda *given, **more: Client.calls.append((name, *given, more))


def test_each_writer_gets_what_the_file_has_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    Events.made, Client.calls, calls = [], [], []

    def init(**given):
        calls.append(given)
        return types.SimpleNamespace(
            define_metric=lambda *a, **k: None, log=calls.append, finish=lambda: calls.append("finish")
        )

    entities = types.SimpleNamespace(Metric=lambda *given: given)
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Events))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=Client, entities=entities))
    own, workdir = Listed(), tmp_path / "run"
    chosen = (own, "tensorboard", "wandb(project='mine')", "mlflow")
    run = fit(writers=chosen, workdir=workdir)
    records = [(r["step"], r["split"]) for r in run.history]
    assert own.seen == [("begin", 0, "equal()"), *records, "close"]
    assert [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()] == run.history
    fit(writers=chosen, workdir=workdir, num_steps=15)
    assert own.seen[len(records) + 2 :] == [("begin", 10, "equal()"), (15, "train"), (15, "val"), "close"]

    first, second = Events.made
    assert first.folder == str(workdir / "tensorboard") and (first.purge, second.purge) == (None, 11)
    price = run.history[-1]["losses"]["price"]
    assert ("val/losses/price", price, 10) in first.scalars and not first.open

    begun = [c for c in calls if isinstance(c, dict) and "project" in c]
    assert begun[0]["mode"] == "offline" and begun[0]["config"]["num_steps"] == 10
    assert begun[0]["id"] == begun[1]["id"] == json.loads((workdir / "wandb.json").read_text())["id"]
    logged = [c["step"] for c in calls if isinstance(c, dict) and "step" in c]
    assert logged == [5, 5, 10, 10, 15, 15] and calls[-1] == "finish"

    assert [c for c in Client.calls if c[0] == "create"] == [("create", "7", "run")]
    assert ("log_param", "abc", "num_steps", "10", {}) in Client.calls
    assert ("update_run", "abc", {"status": "RUNNING"}) in Client.calls
    batch = [c for c in Client.calls if c[0] == "log_batch"][-3][2]["metrics"]
    assert {(name, step): value for name, value, _, step in batch}[("val/losses/price", 10)] == price
    for text, place in (("tensorboard", "folder='runs/events'"), ("wandb", "folder='runs/wandb'")):
        with pytest.raises(ValueError, match=f"writer '{text}' needs a place: a workdir, or {text}.{place}"):
            fit(writers=text)
