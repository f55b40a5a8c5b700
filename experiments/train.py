"""Trains the model of a config; the same command resumes, and says so when the run is finished.

python -m experiments.train --config=experiments/configs/multi_digits.py --workdir=runs/a [--config.x=y]
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import launch

flags.adopt_module_key_flags(launch)
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs, and overrides of its fields.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's records and checkpoints go.")


def finished(workdir: pathlib.Path, config: dict[str, Any]) -> bool:
    """Whether the run is complete, which is then said."""
    from mtl_jax.data.tables import stored
    from mtl_jax.data.tables.serving import changed
    from mtl_jax.training import records

    records.check_same_config(workdir / "config.json", config)
    path = workdir / "summary.json"
    if not path.exists():
        return False
    summary = records.read_json(path)
    if summary["num_steps"] < config["num_steps"]:
        return False
    early = f", stopped early at {summary['steps']}" if summary["steps"] < summary["num_steps"] else ""
    print(f"{workdir} is finished: {summary['num_steps']} steps{early}; results are in {path}. A larger "
          "--config.num_steps continues it")  # fmt: skip
    if said := changed(stored.read(workdir)):
        print(f"warning: {said}; the results are of the file as it was. Train on the changed one in another workdir")
    return True


def report(run: Any, data: Any, workdir: pathlib.Path, config: dict[str, Any]) -> int:
    """Writes summary.json and prints the test metrics; for an interrupted run, says how to go on."""
    from mtl_jax.reporting.summary import metrics_table, summarize
    from mtl_jax.training import records

    if run.interrupted:
        print(f"{run.interrupted}: saved step {run.steps} of {config['num_steps']} in {workdir}; "
              "the same command continues it")  # fmt: skip
        return 0
    summary = {"num_steps": config["num_steps"], "seed": config["seed"], **summarize(run, data)}
    records.write_json(workdir / "summary.json", summary)
    for split in ("test", "val"):
        if split in summary:
            print(f"{split}, best variables by validation:\n{metrics_table(summary[split])}")
            break
    print(f"per-task gradients: {run.engine}")
    print(f"{summary['steps']} steps in {summary['seconds']:.0f} s; {workdir / 'summary.json'}")
    return 0


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble

    config, workdir = assemble.resolve(CONFIG.value), pathlib.Path(WORKDIR.value)
    if finished(workdir, config):
        return 0
    data = assemble.data_of(config)
    model = assemble.model_of(config, data)
    run = mtl.fit(model, data, **assemble.arguments_of_fit(config, workdir))
    return report(run, data, workdir, config)


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir"))
