"""Two versions of this library side by side: steps of balancing methods and of architectures, in turns.

    python -m scripts.benchmarks.two_versions OLD_CHECKOUT NEW_CHECKOUT [--rounds 3]

Runs each checkout's own `scripts.benchmarks.balancing --part steps` and `scripts.benchmarks.sharing` in turns, and
prints the least of the medians of every cell that both have, in milliseconds, with the ratio new / old. One round takes
about ten minutes on 2 CPU cores.
"""

import argparse
import os
import re
import subprocess
import sys

BALANCING = ("scripts.benchmarks.balancing", "--part", "steps", "--rounds", "15", "--models", "small,large",
             "--tasks", "2,3,10")  # fmt: skip
SHARING = ("scripts.benchmarks.sharing", "--tasks", "2,8", "--encoders", "mlp", "--rounds", "15")


def output(checkout: str, command: tuple[str, ...]) -> str:
    """What a program of a checkout prints, run with that checkout's package."""
    environment = {**os.environ, "PYTHONPATH": checkout}
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=checkout, env=environment, capture_output=True, text=True
    )
    if ended.returncode:
        raise SystemExit(f"{checkout}: {' '.join(command)} failed:\n{ended.stderr}")
    return ended.stdout


def of_balancing(text: str) -> dict[tuple[str, ...], float]:
    """{(trunk, K, method): ms}."""
    rows = [line.split("\t") for line in text.splitlines()]
    return {tuple(row[:3]): float(row[3]) for row in rows if len(row) > 3 and row[1].isdigit()}


def of_sharing(text: str) -> dict[tuple[str, ...], float]:
    """{(encoder, K, architecture): ms}."""
    found, where = {}, None
    for line in text.splitlines():
        if head := re.match(r"(\w+), K = (\d+)", line):
            where = head.groups()
        elif where and re.match(r"[a-z_]+ +[0-9.]+ ", line):
            found[(*where, line.split()[0])] = float(line.split()[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    least: dict[str, dict[tuple[str, ...], float]] = {given.old: {}, given.new: {}}
    for _ in range(given.rounds):
        for checkout, seen in least.items():
            for cells in (of_balancing(output(checkout, BALANCING)), of_sharing(output(checkout, SHARING))):
                for cell, ms in cells.items():
                    seen[cell] = min(ms, seen.get(cell, ms))
    for cell, before in least[given.old].items():
        if cell in least[given.new]:
            after = least[given.new][cell]
            print(f"{cell[0]:6} {cell[1]:>3} {cell[2]:28} {before:8.2f} {after:8.2f} {after / before:6.2f}")


if __name__ == "__main__":
    main()
