"""Merges runs of single tasks, which started from one initialisation, into one run; and heals it.

    python -m experiments.merge --config=experiments/configs/multi_digits.py --run=runs/left --run=runs/right \
        --run=runs/sum --workdir=runs/merged [--method="ties(keep=0.1)"] [--base=runs/start] [--scales=0.3,0.6,1] \
        [--heal=300]

The config's data say what is measured, and what methods read that need data. The merged run goes to WORKDIR/merged, the
healed one, trained as the config says for --heal steps, to WORKDIR/healed, and all metrics to WORKDIR/merging.json.
"""

from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import launch

flags.adopt_module_key_flags(launch)
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs, and overrides of its fields.")
RUN = flags.DEFINE_multi_string("run", [], "A run's folder; repeat, in the order of the tasks.")
METHOD = flags.DEFINE_string("method", "average", "How to merge, with options in call syntax.")
BASE = flags.DEFINE_string("base", None, "The run that all started from; by default what their seed initialises.")
SCALES = flags.DEFINE_list("scales", [], "Values of the method's scale to choose from on validation.")
SAME_START = flags.DEFINE_bool("same_start", True, "Refuse runs that started from different parameters.")
HEAL = flags.DEFINE_integer("heal", 0, "Steps of training on all tasks after the merge; 0: none.", lower_bound=0)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the merged and the healed run go.")


def numbers(given: list[str]) -> tuple[float, ...] | None:
    """The values of --scales."""
    try:
        return tuple(map(float, given)) or None
    except ValueError as error:
        raise ValueError(f"--scales={','.join(given)} must be numbers with commas between") from error


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import files, paths
    from mtl_jax.reporting.summary import metrics_table
    from mtl_jax.training.records import plain

    config, workdir = assemble.resolve(CONFIG.value), paths.local_folder(WORKDIR.value, "--workdir")
    data = assemble.data_of(config)
    runs = [mtl.load_run(folder) for folder in RUN.value]
    merged = mtl.transfer.merge(runs, METHOD.value, base=BASE.value, data=data, scales=numbers(SCALES.value),
                                same_start=SAME_START.value)  # fmt: skip
    merged.config["runs"], merged.config["base"] = list(RUN.value), BASE.value
    merged.save(workdir / "merged")
    split, name = (data.test, "test") if data.test is not None else (data.val, "val")
    found: dict[str, Any] = {"how": merged.config, "split": name}
    if split is not None:
        alone: dict[str, Any] = {}
        for run in runs:
            alone |= run.evaluate(getattr(data.select([t.name for t in run.tasks]), name))
        found |= {"alone": plain(alone), "merged": plain(merged.evaluate(split))}
    print(f"{merged.config['merged']} of {', '.join(RUN.value)}; {workdir / 'merged'}")
    for path, why in merged.config["averaged"].items():
        print(f"averaged, as what enters it could not be read: {path} ({why})")
    if HEAL.value:
        how = assemble.arguments_of_fit({**config, "num_steps": HEAL.value}, str(workdir / "healed"))
        healed = mtl.transfer.heal(merged, data, **how)
        if split is not None:
            found["healed"] = plain(healed.evaluate(split))
    for which in ("alone", "merged", "healed"):
        if which in found:
            print(f"\n{name}, {which}:\n{metrics_table(found[which], merged.tasks)}")
    files.write_json(workdir / "merging.json", found)
    print(f"\n{workdir / 'merging.json'}")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("config", "run", "workdir"))
