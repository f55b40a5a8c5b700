"""Compares balancing methods, or sharing architectures, on a config's data: seeds side by side, beside single-task
learning, chosen by validation.

    python -m experiments.compare --config=experiments/configs/compare_digits.py --workdir=runs/compare \
        [--method=upgrad --method="mgda(normalization='l2')"] [--seeds=5] [--static=4] [--plot]
    python -m experiments.compare --config=experiments/configs/compare_digits.py --workdir=runs/architectures \
        --sharing=hard --sharing=mmoe --sharing="cgc(experts=2, own=1)"
    python -m experiments.compare --config=experiments/configs/compare_digits.py --workdir=runs/architectures \
        --sharing=all --seeds=3

With --sharing every row is an architecture, trained with the config's balancer. A table is printed as each program
ends; the last one, with every number behind it, goes to summary.json. The same command again goes on where it was
interrupted.
"""

from absl import flags
from ml_collections import config_flags

from experiments import launch

flags.adopt_module_key_flags(launch)
USUAL = ("equal", "uncertainty", "upgrad", "mgda", "cagrad", "pcgrad")
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs; its balancer is not used.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where runs and results go.")
METHODS = flags.DEFINE_multi_string("method", [], f"A balancer; repeat for several. By default {', '.join(USUAL)}.")
SHARING = flags.DEFINE_multi_string(
    "sharing", [], "An architecture, in place of methods; repeat for several, or 'all'."
)
SIDE_BY_SIDE = flags.DEFINE_bool("side_by_side", True, "Train methods of one shape in one program.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs per method.", lower_bound=1)
STATIC = flags.DEFINE_integer(
    "static", 0, "Static weightings to try; the best on validation gets a row.", lower_bound=0
)
PLOT = flags.DEFINE_bool("plot", False, "Also write comparison.png.")


def main() -> int:
    import mtl_jax as mtl
    from experiments import architectures, assemble
    from mtl_jax import files, paths
    from mtl_jax.training.description import environment

    config, workdir = assemble.resolve(CONFIG.value), paths.local_folder(WORKDIR.value, "--workdir")
    data = assemble.data_of(config)
    encoder = assemble.encoder_of(config, data)
    own = ("balancer", "seed", "workdir")
    arguments = {k: v for k, v in assemble.arguments_of_fit(config, None).items() if k not in own}
    if SHARING.value and METHODS.value:
        raise ValueError("--sharing compares architectures and --method balancers; give one of them")
    chosen = {s: s for s in SHARING.value if s != "all"}
    if "all" in SHARING.value:
        chosen = architectures.every([t.name for t in data.tasks], len(encoder.stages)) | chosen
    rows = {name: (text, config["balancer"]) for name, text in chosen.items()} or METHODS.value or USUAL
    found = mtl.compare(
        encoder, data, rows, seeds=tuple(range(SEEDS.value)), static=STATIC.value, workdir=workdir,
        side_by_side=SIDE_BY_SIDE.value,
        report_progress=lambda known: print(f"{known.table()}\n", flush=True), **arguments,
    )  # fmt: skip
    files.write_json(
        workdir / "summary.json", {**found.content(), "config": assemble.written(config), "environment": environment()}
    )
    for method, how in found.chosen.items():
        print(f"{method}: {how}")
    if PLOT.value:
        found.plot(workdir / "comparison.png")
    print(f"{sum(found.seconds.values()):.0f} s of training in all; {workdir / 'summary.json'}")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir"))
