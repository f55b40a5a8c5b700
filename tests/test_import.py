"""Importing is light: nothing heavy until it is used."""

import inspect
import re
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


def test_what_pulls_a_models_gradients_imports_no_architecture():
    """The engine knows the contract of models, and neither Flax nor a model."""
    loaded = modules_after("import mtl_jax.gradients.engine, mtl_jax.gradients.reference")
    assert "mtl_jax.model" in loaded
    assert not {m for m in loaded if m.split(".")[0] == "flax"}
    assert not {
        m for m in loaded if m.split(".")[:2] in [["mtl_jax", room] for room in ("encoders", "sharing", "heads")]
    }


def test_balancing_imports_no_model():
    """Nor Flax, sharing, encoders, tasks or data: what balances gradients knows losses and pytrees."""
    rooms = ("encoders", "sharing", "heads", "tasks", "losses", "data", "training", "transfer", "analysis")
    used = "import mtl_jax, mtl_jax.balancing; mtl_jax.balanced, mtl_jax.balancing.build('upgrad')"
    loaded = modules_after(used)
    assert {"mtl_jax.balancing.transformation", "mtl_jax.balancing.balance", "jax"} <= loaded
    assert not {m for m in loaded if m.split(".")[0] == "flax"}
    assert not {m for m in loaded if m.split(".")[:2] in [["mtl_jax", room] for room in rooms]}


def test_names_are_found_and_others_are_not():
    import mtl_jax

    assert all(getattr(mtl_jax, name) is not None for name in mtl_jax.__all__)
    assert set(mtl_jax.__all__) <= set(dir(mtl_jax))
    block = inspect.getsource(mtl_jax).split("if TYPE_CHECKING")[1]
    assert set(mtl_jax.__all__) == set(re.findall(r"(\w+) as \1", block))
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = mtl_jax.fitt
