"""Every encoder on real data that suits it: test metrics of a short run of experiments/configs/sharing.py.

    python -m scripts.evidence.encoders [--sharing hard] [--names mlp,cnn] [--workdir runs/encoders]

Each row is ``python -m experiments.train --config=experiments/configs/sharing.py:SHARING,ENCODER``; data other than
multi_digits is found by MTL_JAX_DATA. Runs that are there are not run again.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from experiments.configs.sharing import ENCODERS
from mtl_jax.reporting.describe import table


def summary_of(sharing: str, encoder: str, workdir: pathlib.Path) -> dict:
    """What the run left in summary.json."""
    where = workdir / f"{sharing}_{encoder}"
    config = f"experiments/configs/sharing.py:{sharing},{encoder}"
    command = [sys.executable, "-m", "experiments.train", f"--config={config}", f"--workdir={where}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads((where / "summary.json").read_text())


MAIN = ("span_f1", "auroc", "accuracy", "mae")  # the first of these that a task has is shown


def shown(metrics: dict[str, dict[str, float]]) -> str:
    """A metric of each task, or the mean where there are many."""
    first = {t: next((k, m[k]) for k in MAIN if k in m) for t, m in metrics.items()}
    if len(first) > 4:
        name = next(iter(first.values()))[0]
        return f"mean of {len(first)} tasks: {name} {sum(v for _, v in first.values()) / len(first):.3f}"
    return ", ".join(f"{t} {name} {value:.3f}" for t, (name, value) in first.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sharing", default="hard")
    parser.add_argument("--names", default=",".join(ENCODERS))
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/encoders"))
    given, rows = parser.parse_args(), []
    for name in given.names.split(","):
        found = summary_of(given.sharing, name, given.workdir)
        rows.append((name, ENCODERS[name][2].partition("(")[0], shown(found["test"]), f"{found['seconds']:.0f}"))
        print("\t".join(rows[-1]), flush=True)
    print(table(rows, ("encoder", "data", "test", "seconds"), right=(3,)))


if __name__ == "__main__":
    main()
