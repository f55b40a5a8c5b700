"""School: exam scores of 15,362 pupils of 139 London schools, a task per school (Goldstein, The Statistician 40, 1991).

Regressions of one kind, each with 22 to 251 pupils of its own: the classic question of whether tasks gain from being
learned together (Bakker and Heskes, JMLR 2003; Argyriou, Evgeniou and Pontil, "Convex multi-task feature learning",
Machine Learning 73, 2008, whose ten splits these are).
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mtl_jax import parts
from mtl_jax.batch import Batch, labelled_elements
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset, fit_scaler
from mtl_jax.data.own_rows import check_share, held_out_of_each, split_of
from mtl_jax.data.sources import find, read_mat
from mtl_jax.tasks import Task

TASKS = tuple(f"school_{i:03d}" for i in range(1, 140))
POOLED = "pooled"
SPLITS = 10
PUPILS, COLUMNS = 15362, 27
PERCENTAGES = slice(3, 5)  # columns: free school meals, pupils in the first band
SOURCE = "data/school of github.com/tjanez/PyMTL"


def school(
    tasks: Sequence[str] | str = TASKS,
    split: int = 0,
    val: float = 0.2,
    offsets: bool = False,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """139 regressions, the exam score (1 to 70) of each school's own pupils; or all of them as one task.

    Inputs are `PerTask`, float32 [N_t, 27]: the year (3 columns of 0 and 1), percentage of pupils of the school with
    free meals and in the first band of verbal reasoning (standardised over the published training rows), gender (2),
    own band (3, all 0 for the 15 pupils whose band is not known), ethnic group (11), and the school's gender (3) and
    denomination (3). Test rows, a quarter, are those of a published split; validation rows are a fixed draw of each
    school's training rows.

    Scores of all schools have one scaler, that of all training rows, so that losses of tasks are in one unit. Metrics
    are rmse, mae and r2 of each school; what the literature reports is `explained_variance` of all test rows together.
    There ridge regression has 34.2% on all rows as one task and 37.9% with a column per school; the school's mean 9.9%.

    Args:
      tasks: among `TASKS`, such as school_001; or "pooled", one task of all rows with inputs [N, 27].
      split: which published split, 0 to 9; split i is in the file school_{i + 1}_indexes.mat.
      val: share of each school's training rows that validate; 0 for none.
      offsets: of "pooled", whether 139 columns say which school it is, for inputs [N, 166].
      data_dir: where ``school/school_b.mat`` and its splits lie; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file, the split or the task, and what there is.
    """
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    for name in tasks:
        if name == POOLED and len(tasks) > 1:
            raise ValueError(f"data set 'school': task {POOLED!r} holds the pupils of all schools, so it stands alone")
        if name not in (*TASKS, POOLED):
            raise parts.unknown("task of data set 'school'", name, (*TASKS, POOLED))
    if isinstance(split, bool) or split not in range(SPLITS):
        raise ValueError(f"data set 'school': split={split!r} must be 0 to {SPLITS - 1}, one of the published splits")
    if offsets and tasks != (POOLED,):
        raise ValueError(f"data set 'school': offsets=True goes with tasks={POOLED!r}; schools as tasks have heads")
    check_share("school", val)
    x, y, school_of = read_pupils(find("school/school_b.mat", data_dir, "school", SOURCE))
    name = f"school/school_{split + 1}_indexes.mat"
    train, test = read_split(find(name, data_dir, "school", SOURCE))
    shares = x[:, PERCENTAGES].astype(np.float64)
    x[:, PERCENTAGES] = (shares - shares[train].mean(0)) / shares[train].std(0)
    held = held_out_of_each(school_of[train], val, split)
    parts_of = {"train": train[~held], "val": train[held], "test": test}
    rows_of = {k: r for k, r in parts_of.items() if len(r)}
    if tasks == (POOLED,):
        x = np.concatenate([x, np.eye(len(TASKS), dtype=np.float32)[school_of]], 1) if offsets else x
        raw = {k: all_labelled(x[r], y[r]) for k, r in rows_of.items()}
    else:
        rows_of = {k: {t: r[school_of[r] == TASKS.index(t)] for t in tasks} for k, r in rows_of.items()}
        raw = {k: split_of(x, y, own) for k, own in rows_of.items()}
    fitted = parts_of["train"]
    scaler = fit_scaler(Task(POOLED, "regression"), all_labelled(x[fitted], y[fitted]))
    made = {t: Task(t, "regression", metrics=("rmse", "mae", "r2"), scaler=scaler) for t in tasks}
    given = {"tasks": tasks, "split": split, "val": val, "offsets": offsets}
    defaults = {"tasks": TASKS, "split": 0, "val": 0.2, "offsets": False}
    spec = parts.call("school", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, made, "school", spec=spec, rows=rows_of)


def all_labelled(x: Float[np.ndarray, "row column"], y: Float[np.ndarray, " row"]) -> Batch:
    """A split of the one task "pooled"."""
    return Batch(x, {POOLED: y}, {POOLED: np.ones(len(y), bool)})


def read_pupils(
    path: pathlib.Path,
) -> tuple[Float[np.ndarray, "pupil column"], Float[np.ndarray, " pupil"], Int[np.ndarray, " pupil"]]:
    """(inputs without the column of ones, exam scores, the number of each pupil's school from 0).

    Raises:
      ValueError: naming the file, if it holds anything else.
    """
    found = read_mat(path, {"x": (COLUMNS + 1, PUPILS), "y": (PUPILS, 1), "task_indexes": (len(TASKS), 1)})
    starts = found["task_indexes"].ravel().astype(int) - 1
    sizes = np.diff([*starts, PUPILS])
    if starts[0] != 0 or (sizes < 1).any():
        raise ValueError(f"{path}: task_indexes are not the ascending first rows of {len(TASKS)} schools")
    scores = found["y"].ravel().astype(np.float32)
    return found["x"][:COLUMNS].T.astype(np.float32), scores, np.repeat(np.arange(len(TASKS)), sizes)


def read_split(path: pathlib.Path) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Rows of a published split, ascending, from 0.

    Raises:
      ValueError: naming the file, unless every pupil is in one of the two parts.
    """
    found = read_mat(path, {"tr": (1, None), "tst": (1, None)})
    train, test = (np.sort(found[k].ravel().astype(int)) - 1 for k in ("tr", "tst"))
    if not np.array_equal(np.sort(np.concatenate([train, test])), np.arange(PUPILS)):
        raise ValueError(f"{path}: tr and tst do not hold each of {PUPILS:,} pupils once")
    return train, test


def explained_variance(predictions: Mapping[str, Float[np.ndarray, " row"]], split: Batch) -> float:
    """1 - squared error / squared deviation from the mean, over the labelled rows of all tasks together.

    Of one school r2 says how well its own pupils are told apart; here differences between schools count, too. 0 is
    the mean of all rows. Of `predictions`, as `Run.predict` has them, the tasks of `split` are read.
    """
    labels, found = [], []
    for task, target in split.targets.items():
        there = labelled_elements(np.asarray(target), np.asarray(split.masks[task]))
        labels.append(np.asarray(target, np.float64)[there])
        found.append(np.asarray(predictions[task], np.float64)[there])
    y, error = np.concatenate(labels), np.concatenate(labels) - np.concatenate(found)
    return float(1 - (error**2).sum() / ((y - y.mean()) ** 2).sum())
