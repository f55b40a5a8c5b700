"""What programs say of a run that has ended: whether it has, its metrics, calibration and summary."""

import pathlib
from typing import Any

COVERAGE = 0.9  # of the intervals and sets whose share of labels on test is shown


def finished(workdir: pathlib.Path, config: dict[str, Any], data: Any, run: pathlib.Path | None = None) -> bool:
    """Whether the run is complete, which is then said; an error if it is one of other data.

    Args:
      workdir: with the config and the results.
      config: that is asked for.
      data: the same.
      run: where the run lies, if not in `workdir` itself.
    """
    from mtl_jax import files
    from mtl_jax.training import identity, records

    records.check_same_config(workdir / "config.json", config)
    path = workdir / "summary.json"
    if not path.exists():
        return False
    summary = files.read_object(path, {"num_steps": int, "steps": int})
    if summary["num_steps"] < config["num_steps"]:
        return False
    identity.check_data(run or workdir, data)
    early = f", stopped early at {summary['steps']}" if summary["steps"] < summary["num_steps"] else ""
    print(f"{workdir} is finished: {summary['num_steps']} steps{early}; results are in {path}. A larger "
          "--config.num_steps continues it")  # fmt: skip
    return True


def calibrate(run: Any, data: Any, workdir: pathlib.Path) -> dict[str, dict[str, float | None]]:
    """Calibrates a run on val, for who loads it; {task: {"coverage", "size"}} of its intervals and sets on test."""
    from mtl_jax.training import records
    from mtl_jax.uncertainty import can_calibrate, coverage_of, of_run

    if run.members or data.val is None or not can_calibrate(run.tasks, data.val):
        return {}
    made = run.calibrate(data.val)
    of_run.write(workdir, made.calibration, made.variables)
    if data.test is None:
        return {}
    return records.plain(coverage_of(run.tasks, made.intervals(data.test.inputs, COVERAGE), data.test))


def report(
    run: Any, data: Any, workdir: pathlib.Path, config: dict[str, Any], run_folder: pathlib.Path | None = None
) -> int:
    """Writes summary.json and prints the test metrics.

    Args:
      run, data, config: what was trained, on what, and how.
      workdir: of the results.
      run_folder: where the run lies, beside which its calibration goes; None: in `workdir` itself.
    """
    from experiments import trees
    from mtl_jax import files
    from mtl_jax.reporting import many
    from mtl_jax.reporting.summary import metrics_table, summarize
    from mtl_jax.uncertainty import coverage_table

    summary = {"num_steps": config["num_steps"], "seed": config["seed"], **summarize(run, data)}
    summary["coverage"] = calibrate(run, data, run_folder or workdir)
    summary["beside_trees"] = None
    files.write_json(workdir / "summary.json", summary)
    for split in ("test", "val"):
        if split in summary:
            shown = metrics_table(summary[split], run.tasks, summary["constant"][split])
            print(f"{split}, best variables by validation:\n{shown}")
            break
    if summary["coverage"]:
        print(f"calibrated on val; intervals and sets of test:\n{coverage_table(summary['coverage'], COVERAGE)}")
    for line in run.fallback.lines(run.tasks) if run.fallback is not None else ():
        print(line)
    if many.is_many(run.tasks) and run.without_say:
        print(f"no say in which variables are best: {many.by_reason(run.without_say)}")
    else:
        for task, why in run.without_say.items():
            print(f"task {task} had no say in which variables are best: {why}")
    if run.engine:
        print(f"per-task gradients: {run.engine}")
    if config["beside_trees"]:
        summary["beside_trees"] = trees.tried(run, data)
        files.write_json(workdir / "summary.json", summary)
    print(f"{summary['steps']} steps in {summary['seconds']:.0f} s; {workdir / 'summary.json'}")
    return 0
