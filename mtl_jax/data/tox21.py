"""Tox21: 7,831 molecules and twelve toxicity assays, with 17% of the labels missing (MoleculeNet, Wu et al., 2018)."""

import pathlib
from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.data.arrays import divide, finish, read
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.ngrams import hashed_ngrams
from mtl_jax.data.sources import chosen_tasks, find
from mtl_jax.data.tables import read_csv

ASSAYS = (
    "NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma", "SR-ARE", "SR-ATAD5",
    "SR-HSE", "SR-MMP", "SR-p53",
)  # fmt: skip
SOURCE = "dataset/tox21.csv of github.com/ljatynu/CPBayesMPP, or tox21.csv.gz of MoleculeNet"


def tox21(
    tasks: Sequence[str] = ASSAYS,
    features: int = 1024,
    longest: int = 4,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Twelve binary tasks on SMILES strings.

    Inputs are float32 [N, features]: log(1 + count) of the string's n-grams of 1 to `longest` characters, hashed
    (`ngrams`). Rows are divided 80/10/10 by a fixed permutation.

    Args:
      tasks: among `ASSAYS`.
      features: number of hash buckets.
      longest: length of the longest n-grams.
      data_dir: where ``tox21/tox21.csv.gz`` lies; by default the environment's MTL_JAX_DATA.
    """
    tasks = chosen_tasks("tox21", tasks, ASSAYS)
    path = find("tox21/tox21.csv.gz", data_dir, "tox21", SOURCE)
    columns = read_csv(path)
    absent = [c for c in ("smiles", *tasks) if c not in columns]
    if absent:
        raise ValueError(f"{path}: no column {absent[0]!r}; columns are {', '.join(columns)}")
    inputs = hashed_ngrams(columns["smiles"], features, longest)
    raw, *_ = divide({"train": read(inputs, {t: columns[t] for t in tasks})}, {"val": 0.1, "test": 0.1}, 0, "random()")
    given = {"tasks": tasks, "features": features, "longest": longest}
    defaults = {"tasks": ASSAYS, "features": 1024, "longest": 4}
    spec = parts.call("tox21", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, {t: "binary" for t in tasks}, "tox21", spec=spec)
