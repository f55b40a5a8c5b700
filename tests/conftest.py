"""Eight simulated devices, and every annotation of the package checked while the tests run."""

import os
import pathlib

# Most programs run once, on tiny arrays: they are compiled without optimization, which takes half the time.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Runs of one test are often the program of another's: compiled once, also from one session to the next.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache/compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("mtl_jax", f"{typecheck.__name__}.checker")
