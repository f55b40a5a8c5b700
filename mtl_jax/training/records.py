"""What a run records in metrics.jsonl, and how the config beside it is compared."""

import json
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import files
from mtl_jax.reporting import many
from mtl_jax.training import options, record_lines

FREE_TO_CHANGE = (*options.FREE, "data_dir", "beside_trees")  # between a run and its continuation
RECORD = {"step": int, "split": str, "losses": dict, "seconds": int | float}  # what every line has
LONGEST = 2**30  # bytes of a file of records


def check_same_config(path: pathlib.Path, config: dict[str, Any]) -> None:
    """An error that says what differs, if the working directory belongs to a run of another config."""
    differ = config_differences(path, config)
    if differ:
        raise ValueError(
            f"{path.parent} holds a run of another config; it differs in {'; '.join(differ.values())}. "
            "Use another workdir, or the config of that run"
        )


def config_differences(path: pathlib.Path, config: dict[str, Any], new_keys: bool = True) -> dict[str, str]:
    """{key: how a config differs from that of a file in it}; of keys that are new only if these count."""
    if not path.exists():
        return {}
    stored = files.read_object(path, {})
    old, new = ({k: v for k, v in flat_config(c).items() if k not in FREE_TO_CHANGE} for c in (stored, config))
    keys = sorted(old | new) if new_keys else sorted(old)
    return {k: f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)}


def as_json(content: Any) -> Any:
    """The content as it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(content))


def flat_config(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config to {dotted key: value as JSON has it}."""
    flat = {}
    for key, value in json.loads(json.dumps(config)).items():
        flat |= flat_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def read_history(path: pathlib.Path) -> list[dict]:
    """The records of a file in either form (`record_lines`); a last line that a kill cut short is left out.

    Raises:
      ValueError: naming the line, if one before is no record, or the file more than can be meant.
    """
    if not path.exists():
        return []
    found, number, way_out = [], 0, "move the file away to go on without the records in it"
    names = None
    with files.open_regular(path, LONGEST) as file:
        while line := file.readline(files.LONGEST + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > files.LONGEST:
                raise ValueError(f"{where} is longer than {files.LONGEST:,} bytes; {way_out}")
            try:
                record = files.parse_json(line.rstrip(b"\r\n"), where)
                if (header := record_lines.header_of(record)) is not None:
                    names = header
                    continue
                files.check_fields(record, {}, where)
                record = record_lines.expanded(record, names, where)
                files.check_fields(record, RECORD, where)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    break
                raise ValueError(f"{error}; {way_out}") from error
            found.append(record)
    return found


def history_until(path: pathlib.Path, step: int) -> list[dict]:
    """The records up to a checkpoint; with a warning if they end before it, as every checkpoint has one of its step."""
    kept = [record for record in read_history(path) if record["step"] <= step]
    last = max((record["step"] for record in kept), default=0)
    if last < step:
        warnings.warn(f"{path} ends at step {last}, before checkpoint step {step}; records are lost", stacklevel=3)
    return kept


def append(path: pathlib.Path, record: dict) -> None:
    """Adds one line; of many tasks (`record_lines`) one with their names before it, unless the file begins with it."""
    try:
        text = record_lines.text_of([record], _first_names(path) if many.is_many(record.get("losses", ())) else None)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error  # a full disk names no file


def _first_names(path: pathlib.Path) -> list[str] | None:
    """The tasks that the first line of a file names, if it names any."""
    if not path.exists():
        return None
    with files.open_regular(path, LONGEST) as file:
        line = file.readline(files.LONGEST)
    return record_lines.header_of(files.parse_json(line, f"{path}, line 1")) if line.startswith(b'{"tasks"') else None


def plain(value: Any) -> Any:
    """Arrays to floats, or to lists where a leading axis of runs is left; what is not finite is None, as in JSON."""
    if value is None:
        return None
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


def eval_record(step: int, split: str, names: Sequence[str], losses: Any, metrics: dict, scores: Any = None) -> dict:
    """One record of an evaluation; `losses` is [..., K], and so are the `scores` that variables are kept by."""
    by_task = {"losses": losses} if scores is None else {"losses": losses, "scores": scores}
    return {
        "step": step,
        "split": split,
        **{key: {n: plain(np.asarray(values)[..., i]) for i, n in enumerate(names)} for key, values in by_task.items()},
        "metrics": plain(jax.tree.map(np.asarray, metrics)),
    }
