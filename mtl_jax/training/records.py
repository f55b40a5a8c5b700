"""What a run writes: metrics.jsonl and small JSON files, each written whole or not at all."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

FREE_TO_CHANGE = ("num_steps", "data_dir", "log_every", "workdir")  # between a run and its continuation


def write_json(path: pathlib.Path, content: Any) -> None:
    """Replaces a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(draft, path)


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file.

    Raises:
      FileNotFoundError, ValueError: naming the file, if it is not there or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def check_same_config(path: pathlib.Path, config: dict[str, Any]) -> None:
    """An error that says what differs, if the working directory belongs to a run of another config."""
    if not path.exists():
        return
    old, new = ({k: v for k, v in flat_config(c).items() if k not in FREE_TO_CHANGE} for c in (read_json(path), config))
    differ = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in sorted(old | new) if old.get(k) != new.get(k)]
    if differ:
        raise ValueError(
            f"{path.parent} holds a run of another config; it differs in {'; '.join(differ)}. "
            "Use another workdir, or the config of that run"
        )


def flat_config(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config to {dotted key: value as JSON has it}."""
    flat = {}
    for key, value in json.loads(json.dumps(config)).items():
        flat |= flat_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def read_history(path: pathlib.Path) -> list[dict]:
    """The records of a file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
    return found


def rewind_history(path: pathlib.Path, last_step: int) -> list[dict]:
    """The records up to `last_step`; later ones are dropped from the file too, as they will be written again."""
    if not path.exists():
        return []
    kept = [record for record in read_history(path) if record["step"] <= last_step]
    draft = path.with_name(path.name + ".tmp")
    draft.write_text("".join(json.dumps(r) + "\n" for r in kept))
    os.replace(draft, path)
    return kept


def append(path: pathlib.Path, record: dict) -> None:
    """Adds one line."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def plain(value: Any) -> Any:
    """Arrays to floats, or to lists where a leading axis of runs is left; nan becomes None, as JSON has none."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    value = np.asarray(value)
    if value.ndim:
        return [plain(v) for v in value]
    return float(value) if np.isfinite(value) else None


def train_record(step: int, names: Sequence[str], records: dict[str, Any]) -> dict:
    """One record of the steps since the last one; entries of `records` are [..., steps] or [..., steps, K]."""
    r = {k: np.asarray(v) for k, v in records.items()}
    counted = r["labelled"] & r["finite"]
    losses = np.where(counted, r["losses"], 0).sum(-2) / np.maximum(counted.sum(-2), 1)
    losses = np.where(counted.any(-2), losses, np.nan)

    def by_task(values: np.ndarray) -> dict:
        return {n: plain(values[..., i]) for i, n in enumerate(names)}

    record = {"step": step, "split": "train", "losses": by_task(losses)}
    for key in ("weights", "norms"):
        if key in r and not np.isnan(r[key]).all():
            record[key] = by_task(r[key].mean(-2))
    if "cosines" in r:  # [K, K] in the tasks' order; nan where two tasks were never there together
        there = ~np.isnan(r["cosines"])
        total = np.where(there, r["cosines"], 0).sum(-3)
        record["cosines"] = plain(np.where(there.any(-3), np.round(total / np.maximum(there.sum(-3), 1), 4), np.nan))
    left = (r["labelled"] & ~r["finite"]).sum(-2)
    if left.any():  # steps that went on without a task whose loss or gradient was not finite
        record["left_out"] = by_task(left)
    if not r["applied"].all():
        record["not_applied"] = plain((~r["applied"]).sum(-1))
    record |= {k: plain(v.mean(-1)) for k, v in r.items() if k == "conflict" or k.startswith("aux/")}
    return record


def eval_record(step: int, split: str, names: Sequence[str], losses: Any, metrics: dict) -> dict:
    """One record of an evaluation; `losses` is [..., K]."""
    losses = np.asarray(losses)
    return {
        "step": step,
        "split": split,
        "losses": {n: plain(losses[..., i]) for i, n in enumerate(names)},
        "metrics": plain(jax.tree.map(np.asarray, metrics)),
    }
