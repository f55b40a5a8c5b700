"""The programs as a user runs them: killed and rerun, finished, and given wrong flags."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.checkpoint import Checkpoints
from tests import tiny

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "--config=experiments/configs/multi_digits.py"
SMALL = [
    "--config.data=multi_digits(num_train=300, num_val=50, num_test=50)", "--config.encoder=mlp(features=(16,))",
    "--config.balancer=uncertainty", "--config.batch_size=16", "--config.steps_per_dispatch=20",
    "--config.eval_every=100", "--config.checkpoint_every=40", "--config.log_every=20", "--config.num_steps=1000",
]  # fmt: skip


def command(program, *flags):
    return [sys.executable, "-m", f"experiments.{program}", *flags]


def environment():
    flags = os.environ.get("XLA_FLAGS", "").replace("--xla_force_host_platform_device_count=8", "")
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run(program, *flags):
    return subprocess.run(
        command(program, *flags), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )


def final_state(workdir):
    with Checkpoints(workdir / "checkpoints") as found:
        assert found.latest() == 1000
        shapes = found.shapes(1000, "train")
        target = {p: np.zeros(s, _dtype(p)) for p, s in shapes.items()}
        return found.restore_part(1000, "train", target)


def _dtype(path):
    whole = path in ("step",) or path.endswith("/count")
    return np.int32 if whole else np.uint32 if path == "key" else np.float32


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run("train", CONFIG, *SMALL, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_run_leaves_what_the_design_lists(uninterrupted):
    assert {p.name for p in uninterrupted.iterdir()} == {
        "config.json", "environment.json", "data.json", "identity.json", "metrics.jsonl", "summary.json", "checkpoints",
        "calibration.json",
    }  # fmt: skip
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert set(summary) >= {"val", "test", "parameters", "flops", "peak_bytes", "seconds", "steps"}
    assert summary["test"]["left"]["accuracy"] > 0.5
    assert 0.8 < summary["coverage"]["left"]["coverage"] <= 1
    config = json.loads((uninterrupted / "config.json").read_text())
    for field in ("data", "data_dir", "encoder", "sharing", "balancer", "optimizer", "learning_rate", "schedule",
                  "batch_size", "num_steps", "steps_per_dispatch", "eval_every", "checkpoint_every", "seed", "mesh",
                  "dtype"):  # fmt: skip
        assert field in config


def test_killed_at_random_instants_it_ends_with_the_same_bits(uninterrupted, tmp_path):
    """SIGKILL, as often as it takes; each time the same command goes on from the last whole checkpoint."""
    workdir, draw, kills = tmp_path / "run", random.Random(time.time_ns()), 0
    while kills < 3:
        process = subprocess.Popen(
            command("train", CONFIG, *SMALL, f"--workdir={workdir}"), cwd=ROOT, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not _steps(workdir):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if (workdir / "summary.json").exists():
            break
    assert (workdir / "metrics.jsonl").exists()
    done = run("train", CONFIG, *SMALL, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    tiny.assert_same(final_state(workdir), final_state(uninterrupted))
    read = [json.loads((w / "summary.json").read_text())["test"] for w in (workdir, uninterrupted)]
    assert read[0] == read[1]


def _steps(workdir):
    found = workdir / "checkpoints"
    return found.exists() and any(p.name.isdigit() for p in found.iterdir())


def test_a_finished_run_says_so_and_a_longer_one_continues(uninterrupted):
    before = (uninterrupted / "summary.json").read_text()
    again = run("train", CONFIG, *SMALL, f"--workdir={uninterrupted}")
    assert again.returncode == 0 and "is finished: 1000 steps" in again.stdout
    assert (uninterrupted / "summary.json").read_text() == before
    other = run("train", CONFIG, *SMALL, f"--workdir={uninterrupted}", "--config.balancer=equal")
    assert other.returncode == 1
    assert "holds a run of another config; it differs in balancer: 'uncertainty' -> 'equal'" in other.stderr


def test_evaluate_and_transfer(uninterrupted, tmp_path):
    output = tmp_path / "metrics.json"
    done = run("evaluate", f"--workdir={uninterrupted}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert json.loads(output.read_text()) == summary["test"]

    workdir = tmp_path / "carried"
    done = run("transfer", "--config=experiments/configs/transfer_digits.py", f"--source={uninterrupted}",
               f"--workdir={workdir}", "--config.num_steps=100")  # fmt: skip
    assert done.returncode == 0, done.stderr
    source, carried = mtl.load_run(uninterrupted), mtl.load_run(workdir)
    tiny.assert_same(carried.params["shared"], source.params["shared"])
    assert [partition.owner(p) for p in partition.flatten(carried.params)] == ["shared"] * 2 + ["left_gt_right"] * 2


@pytest.mark.parametrize(
    "program, flags, status, message",
    [
        ("train", [CONFIG, "--workdir=W", "--config.blancer=mgda"], 2, "unknown config field 'blancer'; did you mean "
         "'balancer'? (balance_paths, balancer, batch_size"),
        ("train", [CONFIG, "--wrkdir=W"], 2, "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
        ("train", [CONFIG], 2, "flag --workdir is required"),
        ("train", ["--config=experiments/configs/digits.py", "--workdir=W"], 2, "there is no config file "
         "experiments/configs/digits.py; experiments/configs has "),
        ("train", [CONFIG, "--workdir=W", "--config.balancer=upgard"], 1, "unknown balancer 'upgard'; did you mean "
         "'upgrad'?"),
        ("train", [CONFIG, "--workdir=W", "--config.batch_size=100", "--devices=8"], 1, "batch_size=100 cannot be "
         "divided over 8 devices; use 96 or 104"),
        ("evaluate", ["--workdir=W"], 1, "W holds no run: there is no W/data.json"),
    ],
)  # fmt: skip
def test_wrong_flags_get_one_line(program, flags, status, message, tmp_path):
    found = run(program, *(f.replace("=W", f"={tmp_path / 'W'}") for f in flags))
    assert found.returncode == status
    assert found.stderr.replace(str(tmp_path / "W"), "W").splitlines()[-1].startswith("error: ")
    assert message in found.stderr.replace(str(tmp_path / "W"), "W")
    assert not (tmp_path / "W").exists()


def test_a_signal_is_said_and_ends_a_loop_of_commands():
    """What `fit` raises after a signal becomes one line and a status that is not 0."""
    code = (
        "import signal; from experiments import launch; from mtl_jax.training.interrupts import Interrupts\n"
        "def main():\n"
        "    with Interrupts() as interrupts: signal.raise_signal(signal.SIGTERM)\n"
        "    interrupts.deliver('SIGTERM: saved at step 3 of 9 in W; run again to go on', None)\n"
        "launch.run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 143 and done.stdout == "SIGTERM: saved at step 3 of 9 in W; run again to go on\n"
    assert "Traceback" not in done.stderr
