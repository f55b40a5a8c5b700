"""Where data sets lie that are not part of the project."""

import os
import pathlib

from mtl_jax.paths import local


def find(relative: str, data_dir: str | pathlib.Path | None, name: str, source: str) -> pathlib.Path:
    """The path of a data set's file under `data_dir`, by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError: saying what is missing, how to name the directory and where to get the file.
    """
    root = data_dir or os.environ.get("MTL_JAX_DATA")
    how = "give data_dir (--config.data_dir=DIR) or set MTL_JAX_DATA"
    if not root:
        raise FileNotFoundError(f"data set {name!r} needs DIR/{relative}; {how}. It comes from {source}")
    path = local(root, "data_dir") / relative
    if not path.is_file():
        raise FileNotFoundError(f"data set {name!r}: there is no {path}; {how}. It comes from {source}")
    return path
