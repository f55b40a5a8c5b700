"""Inputs on disk are trained on as those in memory, to the bit, read a little ahead, never whole; what is refused."""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.on_disk import OnDisk
from mtl_jax.training.ahead import LEAST
from tests import tiny

OPTIONS = {
    "num_steps": 20, "batch_size": 16, "steps_per_dispatch": 5, "eval_every": 10, "log_every": 5,
    "checkpoint_every": 5, "optimizer": "adam(learning_rate=0.02)",
}  # fmt: skip


DATA = tiny.data().select(["color"])


class Rows(OnDisk):
    """Rows of an array, as if they lay on disk; `seen` are the numbers of those that were read, `broken` cannot be."""

    broken = None

    def __init__(self, array, max_bytes=2**20):
        self.array, self.shape, self.dtype, self.max_bytes, self.seen = array, array.shape, array.dtype, max_bytes, []

    def take(self, rows):
        return Rows(self.array[rows], self.max_bytes)

    def in_order(self, order, ahead):
        import grain

        def row(number):
            if number == self.broken:
                raise ValueError(f"row {number} cannot be read")
            self.seen.append(number)
            return self.array[number]

        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
        return iter(grain.MapDataset.source(order).map(row).to_iter_dataset(options))

    @property
    def fingerprint(self):
        return str(self.array.sum())


def on_disk(data):
    """The data set with all inputs on disk."""
    splits = {k: getattr(data, k) for k in ("train", "val", "test")}
    return dataclasses.replace(data, **{k: s._replace(inputs=Rows(s.inputs)) for k, s in splits.items()})


def trainer(data, **arguments):
    return mtl.training.Trainer(tiny.model(data.tasks), data, **{"mesh": parallel.make_mesh(1), **OPTIONS, **arguments})


def without_time(history):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history]


@pytest.fixture(scope="module")
def whole():
    """What comes of the rows in memory."""
    job = trainer(DATA)
    for _ in job:
        pass
    return job.result()


def test_the_same_rows_give_the_same_bits_through_a_resume(whole, tmp_path):
    data = on_disk(DATA)
    for record in trainer(data, workdir=tmp_path):
        if record["step"] == 10 and record["split"] == "val":
            break
    job = trainer(data, workdir=tmp_path)
    assert job.at == 5
    for _ in job:
        pass
    run = job.result()
    tiny.assert_same((run.state, run.best, run.variables), (whole.state, whole.best, whole.variables))
    assert without_time(run.history) == without_time(whole.history)
    assert run.evaluate(data.test) == whole.evaluate(DATA.test)
    found, wanted = run.predict(data.test.inputs), whole.predict(DATA.test.inputs)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_step_by_hand_takes_its_turn_and_so_does_one_that_failed(whole):
    """A given batch is compiled by itself, so that bits differ, as they do in memory."""
    job = trainer(on_disk(DATA))
    rows = job.program.feeds[0].feeds[0].rows(0, 4)
    job.program.ahead.inputs.broken = rows[3, 7]
    with job:
        with pytest.raises(ValueError, match=f"row {rows[3, 7]} cannot be read"):
            job.dispatch()
        job.program.ahead.inputs.broken = None
        job.step(jax.tree.map(lambda x: x[rows[0]], DATA.train))
        while job.going:
            job.dispatch()  # four steps first
            job.due()
    tiny.assert_close(job.params, whole.state.params, rtol=1e-4, atol=1e-5)


def test_little_is_read_ahead_and_nothing_twice():
    data = on_disk(DATA)
    job, read = trainer(data, num_steps=2000, eval_every=2000, log_every=5), data.train.inputs
    read.seen.clear()  # floats are checked first
    with job:
        for _ in range(4):
            read_before = len(read.seen)
            job.dispatch()
            assert len(read.seen) - read_before <= 5 * 16 + LEAST + 4
        assert 20 * 16 <= len(read.seen) <= 20 * 16 + LEAST + 4 and job.at == 20
    (feed,) = job.program.feeds
    drawn, seen = feed.rows(0, 30)[0].ravel().tolist(), collections.Counter(read.seen)  # threads end out of turn
    assert collections.Counter(drawn[: 20 * 16]) <= seen <= collections.Counter(drawn)


def test_on_several_devices_and_with_several_seeds():
    """The batch is divided over the devices, and each seed has rows of its own, as in memory; sums may round apart."""
    more = {"mesh": parallel.make_mesh(4), "num_steps": 10, "seed": (0, 1)}
    found, wanted = ([*trainer(d, **more)] for d in (on_disk(DATA), DATA))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one["losses"]["color"], other["losses"]["color"], rtol=1e-5)


def test_rows_of_ones_own_class_become_a_data_set():
    array = np.arange(200, dtype=np.uint8).reshape(50, 4)
    data = mtl.data.from_arrays(Rows(array), {"a": array[:, 0] % 2}, val=0.2, test=0.2)
    for key, share in (("train", 30), ("val", 10), ("test", 10)):
        split = getattr(data, key)
        assert isinstance(split.inputs, Rows) and len(split.inputs) == share and split.inputs.seen == []
        np.testing.assert_array_equal(split.inputs[:], array[data.rows[key]])


def test_refusals(tmp_path):
    job = trainer(on_disk(DATA))
    job.program.ahead.inputs.max_bytes = 16 * 5 * 4 * 4  # four batches
    with pytest.raises(ValueError, match="80 rows that lie on disk are read for a dispatch of 5 steps of 16, which "
                                         "take .*max_bytes=1,280 .*: give a smaller steps_per_dispatch"):  # fmt: skip
        job.dispatch()
    with pytest.raises(ValueError, match="parallel='pmap' reads a training split in memory"):
        trainer(on_disk(DATA), parallel="pmap")
    for _ in trainer(on_disk(DATA), workdir=tmp_path):
        break
    other = DATA.train.inputs.copy()
    other[3, 1] += 1
    changed = dataclasses.replace(DATA, train=DATA.train._replace(inputs=other))
    with pytest.raises(ValueError, match="data: inputs of train differ"):
        trainer(on_disk(changed), workdir=tmp_path)
    with pytest.raises(ValueError, match=r"data: inputs of train files of float32 \(72, 5\) -> float32 \(72, 5\)"):
        trainer(DATA, workdir=tmp_path)


HOST = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
from mtl_jax import parallel
from tests.training.test_ahead import DATA, on_disk, trainer
data = on_disk(DATA)
job = trainer(data, mesh=parallel.make_mesh(), num_steps=10)
data.train.inputs.seen.clear()
losses = [r["losses"]["color"] for r in job]
batch = job.program.feeds[0].rows(0, 10)[0]
own = batch.reshape(10, 2, 8)[:, int(sys.argv[2])].ravel().tolist()
assert sorted(data.train.inputs.seen) == sorted(own), "a host read other rows than its own"
print(losses)
"""


@pytest.mark.slow
def test_each_host_reads_its_own_rows():
    """Two processes with two devices each, against one process with four."""
    root, port = pathlib.Path(__file__).parents[2], str(20000 + os.getpid() % 20000)
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)} | {"PYTHONPATH": str(root)}
    hosts = [subprocess.Popen([sys.executable, "-c", HOST, port, str(i)], cwd=root, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]  # fmt: skip
    said = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    wanted = [r["losses"]["color"] for r in trainer(DATA, mesh=parallel.make_mesh(4), num_steps=10)]
    for out, _ in said:
        np.testing.assert_allclose(json.loads(out.splitlines()[-1]), wanted, rtol=1e-5)
