"""Eight simulated devices, and every annotation of the package checked while the tests run."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("mtl_jax", f"{typecheck.__name__}.checker")
