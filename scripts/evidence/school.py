"""School over its ten published splits: do 139 schools gain from being learned together, and in which way?

    MTL_JAX_DATA=DATA python -m scripts.evidence.school [--splits 10] [--steps 1000] [--workers 1] [--out scores.json]

Explained variance of all test rows, mean over the splits; differences from "hard" are paired by split, with 95%
intervals of Student's t. Every model is an MLP of one stage of 32, AdamW, at the step that is best on validation, as
``experiments/configs/school.py``. "pooled" is one task of all pupils, "pooled, offsets" is told the school. Floors:
``scripts/evidence/floors.txt``.
"""

import argparse
import concurrent.futures as futures
import json
import multiprocessing
import os
import time

import numpy as np

MODELS = ("hard", "film", "task_embedding", "soft(weight=0.01)", "go_mtl(latent=4)", "independent", "pooled",
          "pooled, offsets")  # fmt: skip


def job(model: str, split: int, steps: int) -> tuple[str, int, float, float, int]:
    """(model, split, explained variance of test, seconds, the step kept)."""
    import mtl_jax as mtl
    from mtl_jax.data.school import explained_variance

    pooled = model.startswith("pooled")
    more = {"tasks": "pooled", "offsets": "offsets" in model} if pooled else {}
    began = time.perf_counter()
    data = mtl.data.load("school", split=split, **more)
    built = mtl.sharing.build("hard" if pooled else model, mtl.encoders.mlp(features=(32,)), data.tasks)
    run = mtl.fit(built, data, optimizer="adamw(weight_decay=0.01)", num_steps=steps, batch_size=256 if pooled else 16,
                  patience=5, seed=split, progress=False)  # fmt: skip
    value = explained_variance(run.predict(data.test.inputs), data.test)
    return model, split, value, time.perf_counter() - began, int(np.max(run.best.steps))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", default=";".join(MODELS))
    parser.add_argument("--out")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    jobs = [(m, s, given.steps) for m in given.models.split(";") for s in range(given.splits)]
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(given.workers, context) as pool:
        found = list(pool.map(job, *zip(*jobs, strict=True)))
    scores = {m: [v for name, _, v, *_ in found if name == m] for m in given.models.split(";")}
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            json.dump(scores, file)
    from scipy.stats import t

    print(f"{'':20}{'explained variance':>20}{'against hard':>26}{'seconds':>10}{'step kept':>11}")
    for model, values in scores.items():
        difference, against = np.asarray(values) - scores.get("hard", values), "-"
        if model != "hard" and len(values) > 1:
            half = t.ppf(0.975, len(values) - 1) * difference.std(ddof=1) / len(values) ** 0.5
            against = f"{difference.mean():+.4f} +- {half:.4f}"
        seconds, kept = (np.mean([f[i] for f in found if f[0] == model]) for i in (3, 4))
        print(f"{model:20}{np.mean(values):20.4f}{against:>26}{seconds:10.1f}{kept:11.0f}")


if __name__ == "__main__":
    main()
