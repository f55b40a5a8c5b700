"""The tables of `scripts.evidence.tables`, read from MTL_JAX_DATA as they come, and cut into folds."""

import gzip
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.io import loadmat

NEVER = "Never married"


class Table(NamedTuple):
    """A table as read.

    Attributes:
      numbers: float64 [N, n], nan where missing.
      categories: int32 [N, c], -1 where missing; codes are those of the whole column, labels play no part in them.
      targets: {task: float64 [N]}, nan where missing; of two values 0 and 1 it is binary, else a regression.
      groups: int [N], rows of one group stay in one fold; None where rows are independent.
      amounts: whether 0 and 1 are amounts too.
    """

    numbers: np.ndarray
    categories: np.ndarray
    targets: dict[str, np.ndarray]
    groups: np.ndarray | None = None
    amounts: bool = False

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Of the category columns."""
        return tuple(int(c.max(initial=0)) + 1 for c in self.categories.T)

    def binary(self, task: str) -> bool:
        """Whether the task's labels are 0 and 1."""
        labels = self.targets[task]
        return not self.amounts and bool(np.isin(labels[~np.isnan(labels)], (0, 1)).all())

    def take(self, rows: np.ndarray) -> "Table":
        """Some of its rows."""
        return self._replace(
            numbers=self.numbers[rows], categories=self.categories[rows],
            targets={t: y[rows] for t, y in self.targets.items()},
            groups=None if self.groups is None else self.groups[rows],
        )  # fmt: skip

    def with_targets_of_other_rows(self) -> "Table":
        """The same columns, and nothing to learn from them; the targets of a row stay together."""
        rows = np.random.default_rng(7).permutation(len(self.numbers))
        return self._replace(targets={t: np.asarray(y)[rows] for t, y in self.targets.items()})


def of_frame(frame: pd.DataFrame, targets: dict[str, np.ndarray], groups: np.ndarray | None = None) -> Table:
    """Columns of numbers are numbers, others categories; a constant column is left out."""
    frame = frame.loc[:, [frame[c].nunique() > 1 for c in frame]]
    is_number = [pd.api.types.is_numeric_dtype(frame[c]) for c in frame]
    numbers = frame.loc[:, is_number].to_numpy(np.float64)
    texts = frame.loc[:, [not n for n in is_number]]
    codes = [pd.factorize(texts[c], sort=True)[0] for c in texts]
    categories = np.stack(codes, 1).astype(np.int32) if codes else np.zeros((len(frame), 0), np.int32)
    return Table(numbers, categories, {t: np.asarray(y, np.float64) for t, y in targets.items()}, groups)


def sarcos(root: pathlib.Path) -> Table:
    """7 torques of a robot arm."""
    values = loadmat(root / "sarcos/sarcos_inv_test.mat")["sarcos_inv_test"]
    return of_frame(pd.DataFrame(values[:, :21]), {f"torque_{i}": values[:, 21 + i] for i in range(7)})


def parkinsons(root: pathlib.Path) -> Table:
    """Two scores of 42 patients, who do not appear on both sides of a split."""
    frame = pd.read_csv(root / "parkinsons_updrs/parkinsons_updrs.data", sep=None, engine="python")
    targets = {t: frame[t] for t in ("motor_UPDRS", "total_UPDRS")}
    return of_frame(frame.drop(columns=["subject#", *targets]), targets, frame["subject#"].to_numpy())


def physionet(root: pathlib.Path) -> Table:
    """Intensive care: two severity scores, the length of the stay, and death; -1 says that a label is missing."""
    frame = pd.read_csv(root / "physionet2012/PhysionetChallenge2012-set-a.csv.gz")
    labels = frame[["SAPS-I", "SOFA", "Length_of_stay", "In-hospital_death"]].replace(-1, np.nan)
    labels["Length_of_stay"] = np.log1p(labels["Length_of_stay"])
    return of_frame(frame.drop(columns=["recordid", "Survival", *labels]), {t: labels[t] for t in labels})


def census(root: pathlib.Path) -> Table:
    """The first pair of tasks of the MMoE paper: income, and never married."""
    with gzip.open(root / "census_income_kdd/census-income.test.gz", "rt") as file:
        frame = pd.read_csv(file, header=None, skipinitialspace=True, na_values="?")
    targets = {"income": frame[41].str.contains("50000+", regex=False), "never_married": frame[7] == NEVER}
    frame = frame.drop(columns=[7, 24, 41])  # 24 is the row's weight
    for code in (2, 3, 36, 38):  # numbers that are names: industry, occupation, own business, veteran
        frame[code] = frame[code].astype(str)
    return of_frame(frame, targets)


def heart(root: pathlib.Path) -> Table:
    """Disease at four hospitals: a task each, on the same columns."""
    names = ["age", "sex", "pain", "pressure", "chol", "sugar", "ecg", "rate", "angina", "oldpeak", "slope", "vessels",
             "thal", "disease"]  # fmt: skip
    hospitals = ("cleveland", "hungarian", "switzerland", "va")
    frames = [
        pd.read_csv(root / f"heart_multisite/processed.{h}.data", names=names, na_values=["?", "-9", "-9.0"])
        for h in hospitals
    ]
    frame = pd.concat(frames, ignore_index=True)
    where = np.repeat(np.arange(4), [len(f) for f in frames])
    sick = (frame.pop("disease") > 0).to_numpy(np.float64)
    for code in ("pain", "ecg", "thal"):
        frame[code] = frame[code].map(lambda v: None if np.isnan(v) else f"{v:g}").astype(object)
    return of_frame(frame, {h: np.where(where == i, sick, np.nan) for i, h in enumerate(hospitals)})


def school(root: pathlib.Path) -> Table:
    """Exam scores of 139 schools, pooled: one task."""
    found = loadmat(root / "school/school_b.mat")
    return of_frame(pd.DataFrame(found["x"].T.astype(np.float64)), {"score": found["y"][:, 0]})


def mulan(name: str, targets: int) -> Callable[[pathlib.Path], Table]:
    """A set of Mulan's, an ARFF file whose last columns are targets."""

    def read(root: pathlib.Path) -> Table:
        text = (root / f"mulan_mtr/{name}.arff").read_text()
        header, _, body = re.split(r"(?i)(@data\s*\n)", text, maxsplit=1)
        columns = re.findall(r"(?im)^@attribute\s+('[^']*'|\S+)\s+(.*?)\s*$", header)
        rows = [[c.strip() for c in line.split(",")] for line in body.splitlines() if line.strip() and line[0] != "%"]
        frame = pd.DataFrame(rows, columns=[c for c, _ in columns]).replace("?", None)
        for column, kind in columns:
            if not kind.startswith("{"):
                frame[column] = pd.to_numeric(frame[column])
        last = [c for c, _ in columns[-targets:]]
        labels = {t: frame[t] for t in last if frame[t].nunique() > 1}
        return of_frame(frame.drop(columns=last), labels)._replace(amounts=True)

    return read


def movielens(root: pathlib.Path) -> Table:
    """Ratings of films by users: the rating, and whether it is 4 or more."""
    folder = root / "movielens_100k"
    ratings = pd.read_csv(folder / "u.data.gz", sep="\t", names=["user", "item", "rating", "time"])
    users = pd.read_csv(folder / "u.user", sep="|", names=["user", "age", "gender", "occupation", "zip"])
    genres = [f"genre_{i}" for i in range(19)]
    items = pd.read_csv(folder / "u.item", sep="|", encoding="latin-1",
                        names=["item", "title", "release", "video", "url", *genres])  # fmt: skip
    items["year"] = pd.to_numeric(items["release"].str[-4:])
    frame = ratings.merge(users, on="user").merge(items, on="item")
    targets = {"rating": frame["rating"], "like": frame["rating"] >= 4}
    frame = frame.drop(columns=["rating", "time", "zip", "title", "release", "video", "url"])
    return of_frame(frame.assign(user=frame["user"].astype(str), item=frame["item"].astype(str)), targets)


SETS = {
    "sarcos": sarcos, "parkinsons": parkinsons, "physionet": physionet, "census": census, "heart": heart,
    "school": school, "edm": mulan("edm", 2), "enb": mulan("enb", 2), "jura": mulan("jura", 3),
    "slump": mulan("slump", 3), "sf1": mulan("sf1", 3), "wq": mulan("wq", 14), "movielens": movielens,
}  # fmt: skip


def read(name: str, rows: int) -> Table:
    """A set; of a longer one, `rows` rows that are drawn."""
    if "MTL_JAX_DATA" not in os.environ:
        raise SystemExit("MTL_JAX_DATA must say where the data sets are")
    table = SETS[name](pathlib.Path(os.environ["MTL_JAX_DATA"]))
    total = len(table.numbers)
    return table if total <= rows else table.take(np.random.default_rng(0).permutation(total)[:rows])


def folds(
    table: Table, count: int, seed: int = 1, val: float = 0.2
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(train, val, test) rows of each fold; of independent rows, folds are equally long, so that programs serve again.

    Validation rows are drawn from those that are not tested: whole groups of them, where there are groups.
    """
    draw = np.random.default_rng(seed)
    units = np.arange(len(table.numbers)) if table.groups is None else np.unique(table.groups)
    order, size = draw.permutation(units), len(units) // count
    for i in range(count):
        test = order[i * size : (i + 1) * size]
        rest = draw.permutation(np.setdiff1d(order, test))
        held = round(val * len(rest))
        parts = rest[held:], rest[:held], test
        yield tuple(p if table.groups is None else np.flatnonzero(np.isin(table.groups, p)) for p in parts)
