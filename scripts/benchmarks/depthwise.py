"""Depthwise convolutions on a CPU, forward and with gradients: sums of shifted products against XLA's, in one run.

    python scripts/benchmarks/depthwise.py

Sizes are those of EfficientNet-Lite0 at 224 pixels, batches of 8.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.encoders.convolution import convolve

SIZES = (
    (112, 32, 3, 1),
    (56, 144, 5, 2),
    (14, 480, 3, 1),
    (14, 672, 5, 1),
    (7, 1152, 5, 1),
)  # side, width, kernel, stride
NAMES = ("NHWC", "HWIO", "NHWC")


def seconds(function: Callable, *given: jax.Array) -> float:
    """The least of five runs of the compiled function."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*given))
    found = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        found.append(time.perf_counter() - started)
    return min(found)


def main() -> None:
    print("side  width  kernel  stride   forward own, XLA (ms)        with gradients own, XLA (ms)")
    for side, width, kernel, stride in SIZES:
        draw = np.random.default_rng(0)
        x = jnp.asarray(draw.normal(size=(8, side, side, width)), jnp.float32)
        w = jnp.asarray(draw.normal(size=(kernel, kernel, 1, width)), jnp.float32)
        more = {"feature_group_count": width, "dimension_numbers": NAMES}
        row = []
        for gradients in (False, True):
            for function in (convolve, jax.lax.conv_general_dilated):
                run = functools.partial(function, window_strides=(stride, stride), padding="SAME", **more)
                whole = jax.grad(lambda x, w, run=run: (run(x, w) ** 2).sum(), (0, 1)) if gradients else run
                row.append(1000 * seconds(whole, x, w))
        shown = "        ".join(f"{a:7.1f} {b:7.1f} ({b / a:4.1f} x)" for a, b in (row[:2], row[2:]))
        print(f"{side:4d}  {width:5d}  {kernel:6d}  {stride:6d}   {shown}", flush=True)


if __name__ == "__main__":
    main()
