"""Computer survey: 190 people rate 20 computers, a task per person (Lenk et al., Marketing Science 15, 1996).

Hundreds of tiny regressions that are alike. Argyriou, Evgeniou and Pontil (Machine Learning 73, 2008) and others after
them take 180 of the people; here are all.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset, fit_scaler
from mtl_jax.data.own_rows import check_share, held_out_of_each, split_of
from mtl_jax.data.sources import chosen_tasks, find, read_mat
from mtl_jax.tasks import Task

PEOPLE, COMPUTERS, ATTRIBUTES, LAST = 190, 20, 13, 4
TASKS = tuple(f"person_{i:03d}" for i in range(1, PEOPLE + 1))
SOURCE = "data/computer_survey of github.com/tjanez/PyMTL"


def computer_survey(
    tasks: Sequence[str] = TASKS,
    computers: int = COMPUTERS - LAST,
    val: float = 0.2,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """190 regressions, a person's rating (0 to 10) of how likely they are to buy a computer.

    Inputs are `PerTask`, float32 [N_t, 13] of -1 and 1: whether a computer has an attribute (memory, price, warranty,
    ...). The last 4 of the 20 computers test, as in the literature; of the first `computers` each person's share `val`,
    drawn for each anew, validates. Ratings of all people have one scaler, that of all training rows.

    RMSE over all test ratings, with 16 computers to learn from and with 8: the mean of all ratings 2.80 and 2.79, a
    person's mean 2.44 and 2.52, ridge regression (penalty 3) for each person 1.92 and 2.08, one ridge regression for
    all people on what is left of their means 2.02 and 2.16.

    Args:
      tasks: among `TASKS`, such as person_001.
      computers: of which each person's ratings are known, 2 to 16; the literature has 16 and 8.
      val: share of the known ratings that validate; 0 for none.
      data_dir: where ``computer_survey/conjointAnalysisComputerBuyers.mat`` lies; by default the environment's
        MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file, the task, or the argument and what it takes.
    """
    tasks = chosen_tasks("computer_survey", tasks, TASKS)
    if isinstance(computers, bool) or computers not in range(2, COMPUTERS - LAST + 1):
        raise ValueError(f"data set 'computer_survey': computers={computers!r} must be 2 to {COMPUTERS - LAST}; the "
                         f"last {LAST} of {COMPUTERS} are the test split")  # fmt: skip
    check_share("computer_survey", val)
    path = find("computer_survey/conjointAnalysisComputerBuyers.mat", data_dir, "computer_survey", SOURCE)
    shapes = {"designMarix": (COMPUTERS, 1 + ATTRIBUTES), "likeBuy": (PEOPLE, COMPUTERS)}  # as the file spells it
    found = read_mat(path, shapes)
    # A row per rating, person by person.
    x = np.tile(found["designMarix"][:, 1:].astype(np.float32), (PEOPLE, 1))
    y = found["likeBuy"].astype(np.float32).ravel()
    person, computer = (i.ravel() for i in np.indices((PEOPLE, COMPUTERS)))
    known = np.flatnonzero(computer < computers)
    held = held_out_of_each(person[known], val, 0)
    parts_of = {"train": known[~held], "val": known[held], "test": np.flatnonzero(computer >= COMPUTERS - LAST)}
    number = {t: TASKS.index(t) for t in tasks}
    rows_of = {k: {t: r[person[r] == i] for t, i in number.items()} for k, r in parts_of.items() if len(r)}
    raw = {k: split_of(x, y, own) for k, own in rows_of.items()}
    fitted = parts_of["train"]
    everyone = Batch(x[fitted], {"rating": y[fitted]}, {"rating": np.ones(len(fitted), bool)})
    scaler = fit_scaler(Task("rating", "regression"), everyone)
    made = {t: Task(t, "regression", metrics=("rmse", "mae"), scaler=scaler) for t in tasks}
    given = {"tasks": tasks, "computers": computers, "val": val}
    defaults = {"tasks": TASKS, "computers": COMPUTERS - LAST, "val": 0.2}
    spec = parts.call("computer_survey", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, made, "computer_survey", spec=spec, rows=rows_of)
