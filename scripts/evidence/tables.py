"""Our models on thirteen tables beside linear models, boosting and forests, and the mean; same folds for all.

    MTL_JAX_DATA=DATA python -m scripts.evidence.tables [--sets enb,jura] [--models mean,forest,default] [--folds 3]
        [--rows 20000] [--permuted] [--seed 1] [--budget 480] [--workers 6] [--out scores.json]

A score is RRMSE, sqrt(sum (y - p)^2 / sum (y - known mean)^2), of amounts, or AUROC of two classes; the mean over the
tasks and folds of a set. Models: `table_models.OURS` and `OTHERS`. Ours run in processes of their own, which share an
accelerator; scikit-learn's run beside them. What did not start within the budget (seconds) is said and left out.
"""

import argparse
import concurrent.futures as futures
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings

import numpy as np

from scripts.evidence.table_models import MAIN, OTHERS, OURS, labelled
from scripts.evidence.table_sets import SETS, Table, folds, read


def score(table: Table, task: str, known: np.ndarray, test: np.ndarray, predicted: np.ndarray) -> float:
    """RRMSE, or AUROC; nan where the labels of the test rows are all alike."""
    from sklearn.metrics import roc_auc_score

    there = ~np.isnan(table.targets[task][test])
    y, p = table.targets[task][test][there], predicted[there]
    if table.binary(task):
        return float(roc_auc_score(y, p)) if len(np.unique(y)) == 2 else np.nan
    spread = ((y - labelled(table, task, known)[1].mean()) ** 2).sum()
    return float(np.sqrt(((y - p) ** 2).sum() / spread)) if spread else np.nan


def job(
    name: str, model: str, rows: int, count: int, threads: int, latest: float, permuted: bool = False, seed: int = 1
) -> dict | None:
    """{"scores": {task: [fold]}, "seconds"} of one model on one set; None if it is too late to start."""
    if time.time() > latest:
        return None
    warnings.simplefilter("ignore")
    started, table = time.perf_counter(), read(name, rows)
    table = table.with_targets_of_other_rows() if permuted else table
    scores = {t: [] for t in table.targets}
    for train, val, test in folds(table, count, seed):
        found = ({**OTHERS, **OURS})[model](table, train, val, test, jobs=threads)
        for task in table.targets:
            scores[task].append(score(table, task, np.concatenate([train, val]), test, found[task]))
    return {"scores": scores, "seconds": time.perf_counter() - started}


def prepare(threads: int, cache: str) -> None:
    """Before the first import in a worker: its share of the cores, of the accelerator, and compiled programs."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                   "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}  # fmt: skip


def rows_of(found: dict) -> dict[tuple[str, str], dict[str, float]]:
    """{(set, metric): {model: score}}."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    for (name, model), result in found.items():
        binary = result["binary"]
        for metric, wanted in (("RRMSE", False), ("AUROC", True)):
            values = [v for t, v in result["scores"].items() if binary[t] == wanted]
            if values and not np.isnan(values).all():
                table.setdefault((name, metric), {})[model] = float(np.nanmean(values))
    return table


def ranks(scores: list[float], metric: str) -> np.ndarray:
    """1 for the best; equals share their mean rank."""
    errors = np.round(np.array(scores) * (-1 if metric == "AUROC" else 1), 4)
    return np.array([(errors < e).sum() + ((errors == e).sum() + 1) / 2 for e in errors])


def report(found: dict, models: list[str]) -> None:
    """Every score, mean ranks over the rows that all models have, and where trees or the mean win."""
    table, width = rows_of(found), max(9, *map(len, models)) + 1
    print("\n" + " " * 19 + "".join(m.rjust(width) for m in models))
    of_rows, behind, below = [], [], []
    for (name, metric), scores in table.items():
        cells = [f"{scores[m]:.3f}" if m in scores else "-" for m in models]
        print(f"{name:12s} {metric}" + " " + "".join(c.rjust(width) for c in cells))
        if len(scores) == len(models):
            of_rows.append(ranks([scores[m] for m in models], metric))
        sign = -1 if metric == "AUROC" else 1
        trees = [sign * scores[m] for m in ("boosted", "forest") if m in scores]
        if "default" in scores and trees and min(trees) < sign * scores["default"]:
            behind.append(f"{name} {metric} ({abs(min(trees)):.3f} against {scores['default']:.3f})")
        floor = scores.get("mean", np.nan)
        worse = [m for m in models if m in scores and round(sign * (scores[m] - floor), 4) > 0]
        below += [f"{m} on {name} {metric}" for m in worse]
    if of_rows:
        print(f"mean rank of {len(of_rows):2d}   " + "".join(f"{r:.2f}".rjust(width) for r in np.mean(of_rows, 0)))
    print("seconds            " + "".join(
        f"{sum(r['seconds'] for (_, k), r in found.items() if k == m):.0f}".rjust(width) for m in models))  # fmt: skip
    print("trees are better than default on: " + (", ".join(behind) or "none"))
    print("worse than the mean: " + (", ".join(below) or "none"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--models", default=",".join(MAIN))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20000, help="of each set, at most")
    parser.add_argument("--permuted", action="store_true", help="targets of other rows: the mean is the best model")
    parser.add_argument("--seed", type=int, default=1, help="of the folds")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which nothing new is started")
    parser.add_argument("--workers", type=int, default=None, help="processes for our models")
    parser.add_argument("--out", default=None, help="JSON file of all scores")
    given = parser.parse_args()
    sets, models = given.sets.split(","), given.models.split(",")
    for kind, names, known in (("set", sets, SETS), ("model", models, {**OTHERS, **OURS})):
        for name in names:
            if name not in known:
                sys.exit(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    cores, started, context = os.cpu_count() or 1, time.time(), multiprocessing.get_context("spawn")
    workers = given.workers or max(1, cores // 3)
    threads = 2 if cores > 2 else 1
    latest, found, running = started + given.budget, {}, {}
    tables = {n: read(n, given.rows) for n in sets}
    size = {n: len(t.numbers) * len(t.targets) for n, t in tables.items()}
    with (
        tempfile.TemporaryDirectory() as cache,
        futures.ProcessPoolExecutor(workers, context, prepare, (threads, cache)) as ours,
        futures.ProcessPoolExecutor(max(1, (cores - workers) // threads), context, prepare, (threads, cache)) as others,
    ):
        # The longest first, so that none is left alone at the end; within a set, the models in order.
        for name in sorted(sets, key=size.get, reverse=True):
            for model in models:
                pool = ours if model in OURS else others
                running[
                    pool.submit(job, name, model, given.rows, given.folds, threads, latest, given.permuted, given.seed)
                ] = (name, model)
        for done in futures.as_completed(running):
            name, model = running[done]
            result = done.result()
            if result is None:
                print(f"{name:12s} {model:14s} left out: the budget is spent", flush=True)
                continue
            found[name, model] = {**result, "binary": {t: tables[name].binary(t) for t in result["scores"]}}
            shown = ", ".join(f"{t} {np.nanmean(v):.3f}" for t, v in result["scores"].items())
            print(
                f"{time.time() - started:6.0f}s {name:12s} {model:14s} {result['seconds']:5.0f}s  {shown}", flush=True
            )
            if given.out:
                with open(given.out, "w") as file:
                    json.dump([{"set": n, "model": m, **r} for (n, m), r in found.items()], file)
    report({(n, m): found[n, m] for n in sets for m in models if (n, m) in found}, models)


if __name__ == "__main__":
    main()
