"""Metrics of a run, or of one that `Run.save` wrote, on a split of its data set.

python -m experiments.evaluate --workdir=runs/a [--split=test] [--data=...] [--output=metrics.json]
"""

from absl import flags

from experiments import launch

flags.adopt_module_key_flags(launch)
WORKDIR = flags.DEFINE_string("workdir", None, "The run.")
SPLIT = flags.DEFINE_enum("split", "test", ("train", "val", "test"), "Which split.")
DATA = flags.DEFINE_string("data", None, "Another data set with the run's tasks; by default the run's own.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets lie; by default the environment's MTL_JAX_DATA.")
OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write the metrics to.")


def main() -> int:
    import mtl_jax as mtl
    from mtl_jax import paths
    from mtl_jax.reporting.summary import metrics_table
    from mtl_jax.training import records
    from mtl_jax.training.constants import constant_results

    run = mtl.load_run(WORKDIR.value)
    name = DATA.value or run.data
    if not name:
        raise ValueError(f"{WORKDIR.value} was trained on data that no name loads again; pass --data")
    data = mtl.data.load(name, data_dir=DATA_DIR.value)
    split = getattr(data, SPLIT.value)
    if split is None:
        raise ValueError(f"data set {name!r} has no {SPLIT.value} split")
    found = records.plain(run.evaluate(split))
    constant = records.plain(constant_results(run.tasks, data.train, split))
    print(f"{name}, {SPLIT.value}:\n{metrics_table(found, run.tasks, constant)}")
    if OUTPUT.value:
        records.write_json(paths.local(OUTPUT.value, "--output"), found)
    return 0


if __name__ == "__main__":
    launch.run(main, required=("workdir",))
