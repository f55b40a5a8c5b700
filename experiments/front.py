"""Trains many preferences at once on a config's data and shows what can be had of one task for how much of another.

    python -m experiments.front --config=experiments/configs/compare_digits.py --workdir=runs/front \
        [--method="stch(mu=0.1)"] [--preferences=11] [--seeds=1]

Prints a table and writes front.json and front.png. The same command again goes on where it was interrupted.
"""

from absl import flags
from ml_collections import config_flags

from experiments import launch

flags.adopt_module_key_flags(launch)
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs; its balancer is not used.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run and its results go.")
METHOD = flags.DEFINE_string("method", "stch(mu=0.1)", "A balancer that takes a preference, without it.")
PREFERENCES = flags.DEFINE_integer("preferences", 11, "How many, spread over the simplex.", lower_bound=2)
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs per preference.", lower_bound=1)


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import files, paths
    from mtl_jax.training.description import environment

    config, workdir = assemble.resolve(CONFIG.value), paths.local_folder(WORKDIR.value, "--workdir")
    data = assemble.data_of(config)
    arguments = assemble.arguments_of_fit(config, workdir / "run")
    arguments = {k: v for k, v in arguments.items() if k not in ("balancer", "seed")}
    said = assemble.written(config)
    arguments["config"] = {**said, "balancer": METHOD.value, "preferences": PREFERENCES.value, "seed": SEEDS.value}
    front = mtl.pareto_front(
        assemble.model_of(config, data), data, METHOD.value, PREFERENCES.value, seeds=tuple(range(SEEDS.value)),
        **arguments,
    )  # fmt: skip
    print(front.table())
    files.write_json(workdir / "front.json", {**front.content(), "config": said, "environment": environment()})
    try:
        front.plot(workdir / "front.png")
    except (ImportError, ValueError) as error:
        print(f"no plot: {error}")
    print(f"{len(front.preferences)} preferences in {front.run.seconds:.0f} s; {workdir / 'front.json'}")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir"))
