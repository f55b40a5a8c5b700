"""Eight simulated devices, and every annotation of the package checked while the tests run."""

import functools
import gc
import importlib.metadata
import os
import pathlib

# Most programs run once, on tiny arrays: compiled without optimization, and on jax 0.10 without the newer emitters of
# fused loops, they are ready in a third of the time.
os.environ["XLA_FLAGS"] = " ".join((
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jax").startswith("0.10.") else "",
    os.environ.get("XLA_FLAGS", ""),
))  # fmt: skip
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Runs of one test are often the program of another's: compiled once, also from one session to the next.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache/compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest
from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("mtl_jax", f"{typecheck.__name__}.checker")
# Tracing makes objects by the million that live as long as a program: collecting took a tenth of the time, and takes
# less than half as much where it looks through them more rarely.
gc.set_threshold(20_000, 20, 20)
MAPPINGS = pathlib.Path("/proc/self/maps")  # on Linux; a process may have 65,530, and a compiled program takes some
MANY = 25_000


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go():
    """After each file, where there are many: a worker that compiles for thousands of tests would end in a crash."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_text().count("\n") > MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _validation_is_traced_once():
    """Half of what a short fit takes is tracing how it validates, a pure function of the model and of how tasks lie:
    fits of one model have it in common."""
    from mtl_jax.stacking import Layout
    from mtl_jax.training import evaluation, program

    @functools.lru_cache(maxsize=64)
    def made(model, tasks, groups, members):
        return evaluation.make_evaluate(model, Layout(tasks, dict(groups)), members)

    def make_evaluate(model, layout, members):
        key = (model, layout.tasks, tuple(layout.groups.items()), members)
        try:
            hash(key)
        except TypeError:  # of what holds arrays or lists
            return evaluation.make_evaluate(model, layout, members)
        return made(*key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "make_evaluate", make_evaluate)
        yield
