"""Few-shot curves on Omniglot: five alphabets learned, carried to three that were not seen, by every method.

    python scripts/evidence/few_shot.py --workdir=DIR

Its output is few_shot.txt, its figure docs/few_shot.png. MTL_JAX_DATA has omniglot.

A small CNN learns the five alphabets of `small1` as tasks, by equal weights. The three alphabets of `small2` that are
not among them (Katakana, Sanskrit, Tagalog) are the new tasks, from 1, 5 and all 13 drawings a character; test rows are
the last 5 drawings. Every method, and the same network from scratch, takes the same steps; learning rates are the
methods' own. Prompts and prefixes, which need tokens, are refused by a CNN and so named.
"""

import argparse
import pathlib
import platform
import sys
import time

import jax

import mtl_jax as mtl

NEW = ("Japanese_(katakana)", "Sanskrit", "Tagalog")
SIZE = 20  # pixels: a CNN on 2 cores sees all of a drawing at once
ENCODER = "augmented('cnn(features=(16, 32), norm=\\'group\\')', shift=1)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--methods", nargs="*", default=None, help="by default all")
    parser.add_argument("--shots", nargs="*", default=["1", "5", "all"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain_steps", type=int, default=600)
    parser.add_argument("--num_steps", type=int, default=150)
    given = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(given.workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    began = time.process_time()

    old = mtl.data.load(f"omniglot(size={SIZE}, own_inputs=False)")
    steps = given.pretrain_steps
    source = mtl.fit(
        mtl.sharing.hard(ENCODER, old.tasks), old, num_steps=steps, batch_size=64, eval_every=steps // 6,
        checkpoint_every=steps // 6, log_every=steps // 6, workdir=given.workdir / "source", progress=False,
    )  # fmt: skip
    print(
        f"jax {jax.__version__}, {jax.devices()[0].platform}, {platform.machine()}, Python {platform.python_version()}"
    )
    print(f"source, test accuracy after {steps} steps on {', '.join(t.name for t in old.tasks)}:")
    print(", ".join(f"{t} {m['accuracy']:.3f}" for t, m in source.evaluate(old.test).items()), flush=True)

    new = mtl.data.load(f"omniglot(part='small2', alphabets={NEW!r}, size={SIZE}, own_inputs=False)")
    n = given.num_steps
    found = mtl.transfer.evaluate(
        source, new, tuple(given.methods) if given.methods else "all",
        shots=[s if s == "all" else int(s) for s in given.shots], seeds=tuple(range(given.seeds)), num_steps=n, old=old,
        workdir=given.workdir / "evaluation", batch_size=64, eval_every=n // 3, log_every=n // 3,
        checkpoint_every=n // 3, progress=False,
        report_progress=lambda known: print(known.latest, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(f"\n{found.table()}\n")
    print(f"{sum(map(len, (r for by in found.trainings.values() for r in by.values())))} trainings of {n} steps; "
          f"{time.process_time() - began:.0f} s of the processor in this call")  # fmt: skip
    found.plot(pathlib.Path(__file__).resolve().parents[2] / "docs" / "few_shot.png")


if __name__ == "__main__":
    main()
