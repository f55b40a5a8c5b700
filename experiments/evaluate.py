"""Metrics of a run, or of one that `Run.save` wrote, on a split of its data set.

python -m experiments.evaluate --workdir=runs/a [--split=test] [--data=... | --csv=new.csv] [--output=metrics.json]
"""

from typing import Any

from absl import flags

from experiments import launch

flags.adopt_module_key_flags(launch)
WORKDIR = flags.DEFINE_string("workdir", None, "The run.")
SPLIT = flags.DEFINE_enum("split", "test", ("train", "val", "test"), "Which split.")
DATA = flags.DEFINE_string("data", None, "Another data set with the run's tasks; by default the run's own.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets lie; by default the environment's MTL_JAX_DATA.")
CSV = flags.DEFINE_string("csv", None, "A table with the run's columns: all its rows, encoded as in training.")
OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write the metrics to.")


def data_of(run: Any) -> tuple[str, Any]:
    """(what it is, the data set with the split) that the flags name.

    Raises:
      ValueError: if it cannot be loaded, or the run's own file has changed: split anew, it would test on training rows.
    """
    import mtl_jax as mtl
    from mtl_jax.data.tables.serving import changed

    name = DATA.value or run.data
    if not name:
        raise ValueError(f"{WORKDIR.value} was trained on data that no name loads again; pass --data")
    if DATA.value is None and (said := changed(run.columns)):
        raise ValueError(f"{said}; its splits would be others, and the test split would hold rows of training. "
                         "--csv=FILE evaluates on all rows of a file")  # fmt: skip
    data = mtl.data.load(name, data_dir=DATA_DIR.value)
    if getattr(data, SPLIT.value) is None:
        raise ValueError(f"data set {name!r} has no {SPLIT.value} split")
    return f"{name}, {SPLIT.value}", data


def main() -> int:
    import mtl_jax as mtl
    from mtl_jax import files, paths
    from mtl_jax.reporting.summary import metrics_table
    from mtl_jax.training import records
    from mtl_jax.training.constants import constant_results

    run = mtl.load_run(WORKDIR.value)
    constant = None
    if CSV.value:
        title, split = f"{CSV.value}, all rows", CSV.value
    else:
        title, data = data_of(run)
        split = getattr(data, SPLIT.value)
        constant = records.plain(constant_results(run.tasks, data.train, split))
    found = records.plain(run.evaluate(split))
    print(f"{title}:\n{metrics_table(found, run.tasks, constant)}")
    for line in run.fallback.lines(run.tasks, all_of_them=False) if run.fallback else ():
        print(line)
    if OUTPUT.value:
        files.write_json(paths.local(OUTPUT.value, "--output"), found)
    return 0


if __name__ == "__main__":
    launch.run(main, required=("workdir",))
