"""ChEMBL: how strongly 23,871 molecules act on 691 targets, with 0.55% of the labels there.

The selection of five thresholds of DeepChem (Ramsundar et al., "Deep Learning for the Life Sciences", 2019), and its
split by year: test molecules are the newest. The data are ChEMBL's (Gaulton et al., Nucleic Acids Research 45, 2017).
"""

import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.ngrams import hashed_ngrams
from mtl_jax.data.sources import find
from mtl_jax.data.tables import read_csv
from mtl_jax.data.text import check_counts
from mtl_jax.reporting.many import some
from mtl_jax.scaler import Scaler
from mtl_jax.tasks import Task

FILES = {"train": "train", "val": "valid", "test": "test"}
SOURCE = "examples/chembl/year_sets of github.com/deepchem/deepchem"


def chembl(
    tasks: Sequence[str] | None = None,
    min_labels: int = 1,
    features: int = 2048,
    longest: int = 5,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Regressions of -log10 activity (4 to 11) on SMILES strings: 14,620 / 4,000 / 5,252 molecules, split by year.

    Inputs are float32 [N, features], hashed n-grams of the string (`ngrams`). The splits are as published; one molecule
    is in train and in val. A target with fewer than `min_labels` labels in train is left out, with its labels in val
    and test, and a warning says how many: without one there is nothing to learn, and with 1 these are 129 of 691.

    Every target is scaled by its own mean, and all by one deviation, that of training labels from their target's mean:
    the deviation of a handful of labels says little.

    Args:
      tasks: ChEMBL's names of targets, such as CHEMBL204; by default all that have labels enough.
      min_labels: in train.
      features: number of hash buckets.
      longest: length of the longest n-grams.
      data_dir: where ``chembl_5thresh/chembl_5thresh_ts_train.csv.gz`` and its kin lie; by default the environment's
        MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file, the column, or a task that is not there or lacks labels.
    """
    check_counts("chembl", min_labels=min_labels, features=features, longest=longest)
    tables, texts, names = {}, {}, ()
    for split, file in FILES.items():
        path = find(f"chembl_5thresh/chembl_5thresh_ts_{file}.csv.gz", data_dir, "chembl", SOURCE)
        columns = read_csv(path)
        if "smiles" not in columns:
            raise ValueError(f"{path}: no column 'smiles'; it has {some(list(columns))}")
        texts[split] = columns.pop("smiles")
        names = names or tuple(columns)
        if tuple(columns) != names:
            raise ValueError(f"{path}: its targets are not those of the train file, in the same order")
        tables[split] = {target: numbers(values, f"{path}, column {target!r}") for target, values in columns.items()}
    labelled = {t: int(np.isfinite(y).sum()) for t, y in tables["train"].items()}
    chosen = (tasks,) if isinstance(tasks, str) else names if tasks is None else tuple(tasks)
    for name in chosen:
        if name not in labelled:
            raise parts.unknown("task of data set 'chembl'", name, names)
    few = [t for t in chosen if labelled[t] < min_labels]
    if few and (tasks is not None or len(few) == len(chosen)):
        raise ValueError(f"data set 'chembl': {some(few)} have fewer than min_labels={min_labels} labels in train")
    if few:
        lost = sum(int(np.isfinite(tables[k][t]).sum()) for k in ("val", "test") for t in few)
        warnings.warn(
            f"data set 'chembl': {len(few)} of {len(names)} targets have fewer than {min_labels} labels in train and "
            f"are left out, with {lost:,} labels in val and test ({some(few)})", UserWarning, stacklevel=2,
        )  # fmt: skip
    chosen = tuple(t for t in chosen if labelled[t] >= min_labels)
    raw = {}
    for split, table in tables.items():
        targets = {t: table[t].astype(np.float32) for t in chosen}
        masks = {t: np.isfinite(y) for t, y in targets.items()}
        filled = {t: np.where(masks[t], y, 0).astype(np.float32) for t, y in targets.items()}
        raw[split] = Batch(hashed_ngrams(texts[split], features, longest), filled, masks)
    means = {t: float(np.nanmean(tables["train"][t])) for t in chosen}
    squares = np.concatenate([(y[np.isfinite(y)] - means[t]) ** 2 for t in chosen for y in [tables["train"][t]]])
    deviation = float(np.sqrt(squares.mean())) or 1.0
    made = {t: Task(t, "regression", metrics=("rmse", "mae"), scaler=Scaler((means[t],), (deviation,))) for t in chosen}
    given = {"tasks": tasks if tasks is None else chosen, "min_labels": min_labels, "features": features,
             "longest": longest}  # fmt: skip
    defaults = {"tasks": None, "min_labels": 1, "features": 2048, "longest": 5}
    spec = parts.call("chembl", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, chosen, made, "chembl", spec=spec)


def numbers(values: np.ndarray, where: str) -> np.ndarray:
    """float64 [N], nan where there is no label, of a column as `read_csv` has it: one without any label is text.

    Raises:
      ValueError: for a cell that is neither a number nor empty.
    """
    if values.dtype == object:
        for row, cell in enumerate(values):
            if cell != "":
                raise ValueError(f"{where}: {cell!r} in row {row} is no number")
        return np.full(len(values), np.nan)
    return values
