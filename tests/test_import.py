"""Importing is light: nothing heavy until it is used."""

import subprocess
import sys

import pytest


def modules_after(code):
    text = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(text.stdout.split())


@pytest.mark.smoke
def test_import_is_light():
    loaded = modules_after("import mtl_jax")
    assert not loaded & {"jax", "flax", "orbax.checkpoint", "grain", "matplotlib", "sklearn", "pandas", "rich"}
    loaded = modules_after("import mtl_jax as m; m.sharing.hard, m.balancing.upgrad, m.data.load, m.Task, m.describe")
    assert not loaded & {"orbax.checkpoint", "grain", "matplotlib", "sklearn", "pandas"}


def test_names_are_found_and_others_are_not():
    import mtl_jax

    assert all(getattr(mtl_jax, name) is not None for name in mtl_jax.__all__)
    assert set(mtl_jax.__all__) <= set(dir(mtl_jax))
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = mtl_jax.fitt
