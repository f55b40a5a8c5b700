"""Trains the model of a config; the same command resumes, and says so when the run is finished.

python -m experiments.train --config=experiments/configs/multi_digits.py --workdir=runs/a [--config.x=y]
"""

from absl import flags
from ml_collections import config_flags

from experiments import launch
from experiments.reports import finished, report

flags.adopt_module_key_flags(launch)
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs, and overrides of its fields.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's records and checkpoints go.")


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import paths

    config, workdir = assemble.resolve(CONFIG.value), paths.local_folder(WORKDIR.value, "--workdir")
    data = assemble.data_of(config)
    if finished(workdir, assemble.written(config), data):
        return 0
    model = assemble.model_of(config, data)
    run = mtl.fit(model, data, **assemble.arguments_of_fit(config, workdir))
    return report(run, data, workdir, config)


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir"))
