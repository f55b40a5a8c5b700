"""The programs that merge and rank runs, as a user runs them."""

import json

import pytest

import mtl_jax as mtl
from tests.experiments.test_programs import CONFIG, run

SMALL = ["--config.encoder=mlp(features=(16,))", "--config.balancer=equal", "--config.batch_size=16",
         "--config.steps_per_dispatch=20", "--config.eval_every=20", "--config.log_every=20",
         "--config.checkpoint_every=20", "--config.num_steps=40"]  # fmt: skip
DATA = "--config.data=multi_digits(tasks={}, num_train=300, num_val=60, num_test=60)"


@pytest.mark.slow
def test_runs_are_trained_merged_healed_and_ranked(tmp_path):
    for task in ("left", "right"):
        done = run("train", CONFIG, *SMALL, DATA.format(f"('{task}',)"), f"--workdir={tmp_path / task}")
        assert done.returncode == 0, done.stderr
    folders = [f"--run={tmp_path / t}" for t in ("left", "right")]
    both = DATA.format("('left', 'right')")
    how = ["--method=ties", "--scales=0.5,1", "--heal=20"]
    done = run("merge", CONFIG, *SMALL, both, *folders, f"--workdir={tmp_path / 'm'}", *how)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "m" / "merging.json").read_text())
    assert found["healed"].keys() == found["merged"].keys() == found["alone"].keys() == {"left", "right"}
    data = mtl.data.load(both.removeprefix("--config.data="))
    assert mtl.load_run(tmp_path / "m" / "merged").evaluate(data.test) == found["merged"]
    wrong = run("merge", CONFIG, *SMALL, both, *folders, f"--workdir={tmp_path / 'n'}", "--method=ties(density=1)")
    assert wrong.returncode == 1 and "unknown option of merging method 'ties' 'density'; (keep, scale)" in wrong.stderr
    wrong = run("merge", CONFIG, *SMALL, both, *folders, f"--workdir={tmp_path / 'n'}", "--scales=a,1")
    assert wrong.returncode == 1 and "error: --scales=a,1 must be numbers with commas between" in wrong.stderr

    target = "--config=experiments/configs/transfer_digits.py"
    done = run("rank", target, f"--candidate={tmp_path / 'left'}", f"--candidate=m={tmp_path / 'm' / 'merged'}",
               "--config.num_steps=20", "--config.eval_every=20", "--config.steps_per_dispatch=20", "--fine_tune=2",
               f"--workdir={tmp_path / 'rank'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "rank" / "ranking.json").read_text())
    assert written["fine_tuned"]["winner"] in ("left", "m") and set(written["ranking"]["order"]) == {"left", "m"}
    assert mtl.load_run(tmp_path / "rank" / "left").tasks[0].name == "left_gt_right"
    wrong = run("rank", target, f"--candidate={tmp_path / 'left'}", "--fine_tune=2")
    assert wrong.returncode == 1 and "error: --fine_tune needs --workdir, where its runs go" in wrong.stderr
    wrong = run("rank", target, f"--candidate={tmp_path / 'left'}", f"--candidate={tmp_path / 'm' / 'left'}")
    assert wrong.returncode == 1 and "two candidates are called 'left'; name them" in wrong.stderr
