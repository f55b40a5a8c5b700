"""Data sets. `NAMES` lists those that a config can name; own data comes in by `from_arrays` and its kin."""

import inspect
import pathlib
from typing import Any

from mtl_jax import parts
from mtl_jax.data.arrays import from_arrays
from mtl_jax.data.atis import atis
from mtl_jax.data.chembl import chembl
from mtl_jax.data.cifar10 import cifar10
from mtl_jax.data.computer_survey import computer_survey
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.fsdd import fsdd
from mtl_jax.data.hymenoptera import hymenoptera
from mtl_jax.data.images import from_image_folder, read_images
from mtl_jax.data.multi_digits import multi_digits
from mtl_jax.data.omniglot import omniglot
from mtl_jax.data.sampling import Sampler, padded_batches
from mtl_jax.data.school import school
from mtl_jax.data.tables import from_csv, from_dataframe
from mtl_jax.data.tox21 import tox21
from mtl_jax.data.trec import trec
from mtl_jax.data.ud_ewt import ud_ewt

NAMES: dict[str, Any] = {
    "multi_digits": multi_digits,
    "tox21": tox21,
    "atis": atis,
    "ud_ewt": ud_ewt,
    "trec": trec,
    "fsdd": fsdd,
    "school": school,
    "computer_survey": computer_survey,
    "chembl": chembl,
    "hymenoptera": hymenoptera,
    "cifar10": cifar10,
    "omniglot": omniglot,
    "from_csv": from_csv,
    "from_image_folder": from_image_folder,
}


def load(text: str, data_dir: str | pathlib.Path | None = None, **arguments) -> Dataset:
    """The data set that `text` names, such as ``"multi_digits"`` or ``"from_csv(path='a.csv', targets=('y',))"``.

    Args:
      text: a name of `NAMES`, or a call of one with literal arguments.
      data_dir: where sets lie that do not come with the project; by default the environment's MTL_JAX_DATA.
      **arguments: further arguments of the call, such as ``tasks=("left",)``.
    """
    name, _, _ = parts.parse(text, "data set")
    function = parts.lookup(name, NAMES, "data set")
    takes = inspect.signature(function).parameters
    for key in arguments:
        if key not in takes:
            raise parts.unknown(f"argument of data set {name!r}", key, takes)
    if data_dir is not None and "data_dir" in takes:
        arguments["data_dir"] = data_dir
    return parts.build(text, NAMES, "data set", **arguments)


__all__ = [
    "NAMES", "Dataset", "Sampler", "atis", "chembl", "cifar10", "computer_survey", "from_arrays", "from_csv",
    "from_dataframe", "from_image_folder", "fsdd", "hymenoptera", "load", "multi_digits", "omniglot", "padded_batches",
    "read_images", "school", "tox21", "trec", "ud_ewt",
]  # fmt: skip
