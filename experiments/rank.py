"""Which run to carry to a config's data: scores of each, their agreement, and the best two fine-tuned.

    python -m experiments.rank --config=experiments/configs/transfer_digits.py --candidate=runs/a --candidate=b=runs/b \
        [--workdir=runs/rank --fine_tune=2] [--task=left_gt_right] [--score=ridge --score="knn(k=1)"]

Every candidate is passed over the training rows once. With --fine_tune, the first so many by mean rank are trained on
the config's data (optimizer, steps, freezing and all else as the config has it), and validation says who won. The
table goes to WORKDIR/ranking.json with every number behind it, each fine-tuned run to WORKDIR/<candidate>.
"""

from absl import flags
from ml_collections import config_flags

from experiments import launch

flags.adopt_module_key_flags(launch)
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of experiments/configs; its data are the target.")
CANDIDATE = flags.DEFINE_multi_string("candidate", [], "A run's folder, or name=folder; repeat for several.")
TASK = flags.DEFINE_multi_string("task", [], "A task of the data to rank by; by default all.")
SCORE = flags.DEFINE_multi_string("score", [], "A score with options; by default all.")
MAX_ROWS = flags.DEFINE_integer("max_rows", 2000, "Labelled rows of a task that are read at most.", lower_bound=4)
FINE_TUNE = flags.DEFINE_integer("fine_tune", 0, "How many candidates to fine-tune; 0: none.", lower_bound=0)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the ranking and the fine-tuned runs go.")
EXTRA = ("load", "num_labels")  # config fields beyond those of training


def named(candidates: list[str]) -> dict[str, str]:
    """{name: folder} of what was given as ``name=folder`` or ``folder``; a folder's name is its last part."""
    import pathlib

    found: dict[str, str] = {}
    for text in candidates:
        name, given, folder = text.partition("=")
        name, folder = (name, folder) if given else (pathlib.Path(text).name, text)
        if name in found:
            raise ValueError(f"two candidates are called {name!r}; name them: --candidate=NAME=FOLDER")
        found[name] = folder
    return found


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import files, paths
    from mtl_jax.transfer.ranking import NAMES

    if FINE_TUNE.value and WORKDIR.value is None:
        raise ValueError("--fine_tune needs --workdir, where its runs go")
    config = assemble.resolve(CONFIG.value, EXTRA)
    data = assemble.data_of(config)
    if config.get("num_labels"):
        val = 0 if data.val is None else len(next(iter(data.val.masks.values())))
        data = data.take(config["num_labels"], val=val)
    ranking = mtl.transfer.rank(
        named(CANDIDATE.value), data, tasks=TASK.value or None, scores_of=tuple(SCORE.value) or tuple(NAMES),
        max_rows=MAX_ROWS.value, seed=config["seed"] if isinstance(config["seed"], int) else 0,
    )  # fmt: skip
    print(ranking.table())
    content = {"ranking": ranking.content(), "config": assemble.written(config), "fine_tuned": None}
    workdir = None if WORKDIR.value is None else paths.local_folder(WORKDIR.value, "--workdir")
    if workdir is not None:
        files.write_json(workdir / "ranking.json", content)
    if FINE_TUNE.value:
        how = assemble.arguments_of_fit(config, None)
        how.pop("workdir")
        found = mtl.transfer.recommend(ranking, data, top=FINE_TUNE.value, freeze=how.pop("freeze"),
                                       load=tuple(config.get("load") or (("shared/.*", True),)), workdir=workdir,
                                       **how)  # fmt: skip
        print(f"\n{found.table()}")
        content["fine_tuned"] = {"winner": found.winner, "says": found.says, "validation": found.metrics,
                                 "scores": {n: s.tolist() for n, s in found.scores.items()}}  # fmt: skip
        files.write_json(workdir / "ranking.json", content)
    if workdir is not None:
        print(workdir / "ranking.json")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("config", "candidate"), fields=EXTRA)
