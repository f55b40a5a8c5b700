"""The main job: do tasks gain from being learned together, and does what was learned carry to a new one?

    python -m experiments.quickstart [--num_steps=500] [--seeds=3] [--workdir=runs/quickstart]

On `multi_digits`: single-task baselines, equal weights and UPGrad, all seeds of a method in one compiled program; then
the trunk of the equal-weights runs carried to the held-back task "left > right" with 100 labels. Prints two tables and
writes them, with every number behind them, to summary.json. About two minutes on 2 CPU cores.
"""

import time
from typing import Any

from absl import flags

from experiments import launch

flags.adopt_module_key_flags(launch)
NUM_STEPS = flags.DEFINE_integer("num_steps", 500, "Training steps of each method.", lower_bound=1)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs per method, trained side by side.", lower_bound=1)
WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "Where summary.json goes.")

ENCODER = "cnn(features=(16, 32))"
METHODS = {  # name: (sharing, balancer)
    "single-task": ("independent", "equal"),
    "equal": ("hard", "equal"),
    "upgrad": ("hard", "upgrad"),
}
TRANSFER = {  # name: (start from the trunk?, freeze)
    "frozen": (True, "shared/.*"),
    "fine-tuned": (True, None),
    "from scratch": (False, None),
}
LABELS = 100


def learn_together(data: Any, num_steps: int, seeds: tuple[int, ...]) -> dict[str, Any]:
    """{method: run}, with a member per seed."""
    import mtl_jax as mtl

    runs = {}
    for name, (sharing, balancer) in METHODS.items():
        model = mtl.sharing.build(sharing, mtl.encoders.build(ENCODER), data.tasks)
        runs[name] = mtl.fit(model, data, balancer=balancer, num_steps=num_steps, seed=seeds)
        print(f"{name}: {num_steps} steps x {len(seeds)} seeds in {runs[name].seconds:.0f} s", flush=True)
    return runs


def carry_over(source: Any, few: Any, num_steps: int, seeds: tuple[int, ...]) -> dict[str, Any]:
    """{way to transfer: run} on the new task."""
    import mtl_jax as mtl

    runs = {}
    for name, (start, freeze) in TRANSFER.items():
        model = mtl.sharing.build(source.model.spec, source.model.encoder, few.tasks)
        if start:
            model = mtl.transfer.adapt(source, few.tasks, freeze=freeze)
        runs[name] = mtl.fit(model, few, num_steps=num_steps, batch_size=32, seed=seeds)
    return runs


def main() -> int:
    import mtl_jax as mtl
    from mtl_jax import files, paths
    from mtl_jax.reporting import compare
    from mtl_jax.reporting.summary import parameter_counts
    from mtl_jax.training import records
    from mtl_jax.training.constants import constant_results
    from mtl_jax.training.description import environment

    began = time.perf_counter()
    seeds, workdir = tuple(range(SEEDS.value)), paths.local_folder(WORKDIR.value, "--workdir")
    data = mtl.data.load("multi_digits")
    print(f"{data}\n{ENCODER}, seeds {', '.join(map(str, seeds))}", flush=True)

    runs = learn_together(data, NUM_STEPS.value, seeds)
    test = {name: run.evaluate(data.test) for name, run in runs.items()}
    sizes = {name: f"{sum(parameter_counts(run)[0].values()):,}" for name, run in runs.items()}
    seconds = {name: f"{run.seconds:.0f}" for name, run in runs.items()}
    extra = {"parameters": sizes, "seconds": seconds}
    floor = constant_results(data.tasks, data.train, data.test)
    together = compare.methods_table(data.tasks, test, "single-task", extra, constant=floor)
    print(f"\nLearned together and apart (test, mean ± standard deviation over seeds):\n{together}\n", flush=True)

    few = mtl.data.load("multi_digits", tasks=("left_gt_right",)).take(LABELS)
    carried = carry_over(runs["equal"], few, max(NUM_STEPS.value // 2, 1), seeds)
    carried_test = {name: run.evaluate(few.test) for name, run in carried.items()}
    counts = {name: parameter_counts(run) for name, run in carried.items()}
    trains = {name: f"{free:,} of {sum(owned.values()):,}" for name, (owned, free) in counts.items()}
    few_floor = constant_results(few.tasks, few.train, few.test)
    transfer = compare.methods_table(few.tasks, carried_test, extra={"parameters trained": trains}, constant=few_floor)
    print(f"Carried to a new task with {LABELS} labels (test):\n{transfer}\n", flush=True)

    summary = {
        "num_steps": NUM_STEPS.value,
        "seeds": list(seeds),
        "encoder": ENCODER,
        "test": records.plain(test),
        "constant": records.plain(floor),
        "delta_m": {n: records.plain(compare.delta_m(data.tasks, r, test["single-task"])) for n, r in test.items()},
        "transfer": {
            "labels": LABELS,
            "test": records.plain(carried_test),
            "constant": records.plain(few_floor),
        },  # fmt: skip
        "tables": {"together": together.splitlines(), "transfer": transfer.splitlines()},
        "environment": environment(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    files.write_json(workdir / "summary.json", summary)
    print(f"{summary['seconds']:.0f} s in all; every number is in {workdir / 'summary.json'}")
    return 0


if __name__ == "__main__":
    launch.run(main)
