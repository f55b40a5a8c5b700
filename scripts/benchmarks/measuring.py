"""How the benchmarks measure: compiled steps with their cost, and medians over interleaved calls."""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mtl_jax.alike import layout_of


class Compiled(NamedTuple):
    """A compiled step: `call` goes on from where the last one ended."""

    call: Callable[[], None]
    seconds: float  # to compile
    flops: float  # as XLA counts them: the body of a loop once
    peak: float  # MiB


def compiled(step: Callable, first: Any, batch: Any) -> Compiled:
    """Compiles step(carry, batch), whose result is the next carry or a tuple that starts with it.

    Args:
      step: of (carry, batch); a result that has not the carry's structure is taken for (carry, ...).
      first: the carry to start from; given away.
      batch: the same for every call.
    """
    began = time.perf_counter()
    program = jax.jit(step, donate_argnums=0).lower(first, batch).compile()
    seconds, memory = time.perf_counter() - began, program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    carry, alone = [first], program.out_tree == jax.tree.structure(first)

    def call() -> None:
        result = program(carry[0], batch)
        carry[0] = result if alone else result[0]
        jax.block_until_ready(result)

    peak = (held + memory.temp_size_in_bytes) / 2**20
    return Compiled(call, seconds, program.cost_analysis()["flops"], peak)


def lying(model: Any, optimizer: Any, variables: Any, batch: Any) -> tuple[Any, Any, Any]:
    """(how alike tasks lie as in `fit`, the variables and the batch so)."""
    layout = layout_of(model, model.tasks, variables, batch, optimizer=optimizer)
    return layout, layout.stack_variables(variables), layout.stack_batch(batch)


def torch_device() -> str:
    """PyTorch's name of the kind of device that JAX runs on."""
    return "cuda" if jax.devices()[0].platform == "gpu" else "cpu"


def torch_wait() -> None:
    """Returns when PyTorch's work on a GPU is done."""
    if torch_device() == "cuda":
        import torch

        torch.cuda.synchronize()


def set_precision(precision: str) -> None:
    """How both libraries multiply float32 matrices on a GPU: "highest" is float32, "high" TF32."""
    jax.config.update("jax_default_matmul_precision", {"highest": "highest", "high": "tensorfloat32"}[precision])
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_float32_matmul_precision(precision)


BURST = 30.0  # milliseconds for which a short call is repeated


def medians(calls: dict[str, Callable], rounds: int, patience: float = 60.0) -> dict[str, float]:
    """{name: median milliseconds} of interleaved calls, after two rounds to warm up.

    Args:
      calls: what to run, {name: call that returns when its work is done}. In training a step follows itself, not
        another library's, whose threads still spin: a short call runs in bursts, and a burst's second half counts.
      rounds: how many count; after `patience` seconds three will do.
    """
    times, started = {name: [] for name in calls}, time.perf_counter()
    for done in range(rounds + 2):
        if done >= 5 and time.perf_counter() - started > patience:
            break
        for name, call in calls.items():
            repeats = math.ceil(BURST / times[name][-1]) if times[name] else 1
            times[name].append(statistics.median([milliseconds(call) for _ in range(repeats)][repeats // 2 :]))
    return {name: statistics.median(t[2:]) for name, t in times.items()}


def milliseconds(call: Callable) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
