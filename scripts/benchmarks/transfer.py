"""What fine-tuning costs: a step and its peak memory by method, beside PEFT; a probe with features kept; merging.

    python -m scripts.benchmarks.transfer [--part steps|probe|merging] [--size minilm|bert_base] [--threads 1]
        [--torch_python=PATH] [--rounds 9]

Steps: a BERT of MiniLM's or BERT-base's size with drawn weights, written as Hugging Face's files and read by both
libraries; 16 texts of 32 to 64 tokens, a head of 5 classes on the mean of the tokens, Adam, float32, no dropout. LoRA
has rank 8 at all six matrices of every block, in PEFT too. Both start from the same weights and head, and their first
losses are compared. Steps of all rows are taken in turns, the first of a turn not counted: the median, the least, and
the least time on the processor. Where other programs run on the machine, take one thread and the last of these, which
they disturb least. --torch_python is that of an environment with torch, transformers and peft (never a dependency
here); without it its rows are left out.

Peak: in a process of its own, the most memory it holds during three steps beyond what it holds before weights are
read: weights, optimizer, and what a step needs. Our program is compiled, and a Torch layer has run, before that; what a
compiled program takes is under "program". "XLA" is the compiled step's own account: arguments, results and temporaries.

Probe: FLOPs, as XLA counts them, beside those of the forward pass and head; then an epoch with features computed once.
Merging: see `transfer_merging.py`. On Linux, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 as for the other benchmarks, and
OPENBLAS_NUM_THREADS=1 beside --threads 1.
"""

import argparse
import ctypes
import gc
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mtl_jax.reporting.describe import table
from scripts.benchmarks import measuring, transfer_merging, transfer_model, transfer_probe

METHODS = ("full", "lora(rank=8)", "probe", "bitfit", "ia3", "adapters(width=8)", "dora(rank=8)")
CORES = len(os.sched_getaffinity(0))
Seconds = tuple[float, float]  # wall, and processor over all threads


def of_torch(python: str, folder: pathlib.Path, threads: int) -> tuple[subprocess.Popen, dict[str, Any]]:
    """(a process that takes PyTorch's steps, what it says of them)."""
    script = pathlib.Path(__file__).with_name("transfer_torch.py")
    if not os.access(python, os.X_OK):
        raise SystemExit(f"there is no program {python}; --torch_python is the python of an environment with peft")
    command = [python, str(script), str(folder), str(threads)]
    found = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    line = found.stdout.readline()
    if not line:
        raise SystemExit(f"{python} cannot run {script.name}: it needs torch, transformers and peft")
    return found, json.loads(line)


def peak_of(command: list[str]) -> Any:
    """What a process prints as JSON."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(calls: dict[str, Callable[[], Seconds]], rounds: int) -> dict[str, list[Seconds]]:
    """{name: times}; a turn takes two steps, of which the second counts, and the first two turns do not."""
    times: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            call()
            times[name].append(call())
    return {name: t[2:] for name, t in times.items()}


def timed(call: Callable[[], None]) -> Callable[[], Seconds]:
    """The same call, which returns its times."""

    def measured() -> Seconds:
        wall, processor = time.perf_counter(), time.process_time()
        call()
        return time.perf_counter() - wall, time.process_time() - processor

    return measured


def steps_table(folder: pathlib.Path, methods: list[str], python: str | None, threads: int, rounds: int) -> str:
    """A row per library and method."""
    steps = {m: transfer_model.of_method(folder, m) for m in methods}
    made = {m: measuring.compiled(s.function, s.first(), s.batch) for m, s in steps.items()}
    calls = {("mtl_jax", m): timed(c.call) for m, c in made.items()}
    trains, peaks, losses = {("mtl_jax", m): s.trains for m, s in steps.items()}, {}, {}
    for m in methods:
        command = [sys.executable, "-m", "scripts.benchmarks.transfer", "--peak", m, "--folder", str(folder)]
        *peaks["mtl_jax", m], losses[m] = peak_of([*command, "--threads", str(threads)])
    if python:
        process, said = of_torch(python, folder, threads)
        print(said["versions"])
        for m, count in said["trains"].items():
            row = "PEFT" if m.startswith("lora") else "PyTorch", m
            calls[row] = lambda m=m: ask(process, m)
            trains[row] = count
            script = str(pathlib.Path(__file__).with_name("transfer_torch.py"))
            peaks[row] = (peak_of([python, script, str(folder), str(threads), "--peak", m]), None)
            if m in losses and not np.isclose(losses[m], said["losses"][m], rtol=1e-4):
                raise SystemExit(f"{m}: the first loss is {losses[m]} here and {said['losses'][m]} in PyTorch")
            if m in steps and steps[m].trains != count:
                raise SystemExit(f"{m}: {steps[m].trains} numbers train here, and {count} in PyTorch")
        print("first losses: " + ", ".join(f"{m} {losses[m]:.5f} and {x:.5f}" for m, x in said["losses"].items()
                                           if m in losses))  # fmt: skip
    found = in_turns(calls, rounds)
    first, rows = found["mtl_jax", methods[0]], []
    whole, least = statistics.median(w for w, _ in first), min(c for _, c in first)
    for (library, m), times in found.items():
        walls, processor = [w for w, _ in times], min(c for _, c in times)
        own = made[m] if library == "mtl_jax" else None
        peak, program = peaks[library, m]
        rows.append((
            library, m, f"{trains[library, m]:,}", f"{1e3 * statistics.median(walls):.0f}", f"{1e3 * min(walls):.0f}",
            f"{statistics.median(walls) / whole:.2f}", f"{1e3 * processor:.0f}", f"{processor / least:.2f}",
            f"{peak:.0f}",
            *((f"{program:.0f}", f"{own.peak:.0f}", f"{own.flops / 1e9:.1f}", f"{own.seconds:.1f}") if own else
              ("-", "-", "-", "-")),
        ))  # fmt: skip
    if python:
        process.stdin.close()
        process.wait()
    header = ("library", "method", "trains", "ms", "least", f"x {methods[0]}", "CPU ms", f"x {methods[0]}", "peak MiB",
              "program MiB", "XLA MiB", "GFLOP", "compile s")  # fmt: skip
    return table(rows, header, right=tuple(range(2, 13)))


def ask(process: subprocess.Popen, method: str) -> Seconds:
    """The times of a step of PyTorch's process."""
    process.stdin.write(method + "\n")
    return tuple(json.loads(process.stdout.readline()))


def held(what: str) -> int:
    """KiB of this process: VmRSS, what it holds now, or VmHWM, the most that it held."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))


def settle() -> int:
    """KiB that are held once what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return held("VmRSS")


def peak(folder: pathlib.Path, method: str) -> tuple[float, float, float]:
    """(MiB at most while three steps run beyond what is held before, MiB of the compiled step, the first loss)."""
    step = transfer_model.of_method(folder, method)
    shapes = jax.eval_shape(step.first)
    bare = settle()
    program = jax.jit(step.function, donate_argnums=0).lower(shapes, step.batch).compile()
    before = settle()
    carry = step.first()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    losses = []
    for _ in range(3):
        carry, record = jax.block_until_ready(program(carry, step.batch))
        losses.append(float(record["losses"][0]))
    return (held("VmHWM") - before) / 1024, (before - bare) / 1024, losses[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("steps", "probe", "merging"), action="append")
    parser.add_argument("--size", choices=tuple(transfer_model.SIZES), default="minilm")
    parser.add_argument("--threads", type=int, choices=(1, CORES), default=CORES)
    parser.add_argument("--torch_python", help="of an environment with torch, transformers and peft")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ';'")
    parser.add_argument("--depths", default="18,50", help="of the ResNets that are merged")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    one_thread = "--xla_cpu_multi_thread_eigen=false"
    if given.threads == 1 and one_thread not in os.environ.get("XLA_FLAGS", ""):  # before the first array
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one_thread}".strip()
    if given.peak:
        print(json.dumps(peak(given.folder, given.peak)))
        return
    device, parts = jax.devices()[0], given.part or ["steps", "probe", "merging"]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}, "
          f"{given.threads} threads, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    warnings.filterwarnings("ignore", message="the jitted function includes a pmap")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")  # of the processes that measure peaks
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
        transfer_model.write(folder, given.size)
        if "steps" in parts:
            found = steps_table(folder, given.methods.split(";"), given.torch_python, given.threads, given.rounds)
            print(f"\nSteps, {given.size}\n{found}", flush=True)
        if "probe" in parts:
            print(f"\nProbe, {given.size}", *transfer_probe.probe_lines(folder), sep="\n", flush=True)
    if "merging" in parts:
        for depth in map(int, given.depths.split(",")):
            print(transfer_merging.merging_table(depth), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
