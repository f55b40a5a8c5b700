"""Where validation does not vouch for a task's predictions: the best constant instead, or predictions moved toward it.

What `verdicts.judge` found at the end of a fit is kept with the run, applied wherever outputs become predictions,
losses or metrics, and said in words. The variables stay the model's.
"""

import dataclasses
import math
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import files
from mtl_jax.data.fingerprint import of_tree
from mtl_jax.predictions import one_output, prediction
from mtl_jax.scaler import origin_of
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task

FILE = "fallback.json"
SHOWN = 3  # numbers of a constant in a line


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What validation says of one task.

    Attributes:
      keeps: how much of the way from the constant to the model's outputs is left, in [0, 1]: 1 leaves predictions as
        they are, 0 is the constant.
      score: 1 - loss / loss of the best constant, of the model's own predictions; nan where it could not be judged.
      error: its standard error over `units`.
      units: how many labelled rows, or groups of rows, there were to judge by.
      grouped: whether they are groups.
      why: why it could not be judged; else "".
    """

    keeps: float
    score: float = math.nan
    error: float = math.nan
    units: int = 0
    grouped: bool = False
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Fallback:
    """Of a run.

    Attributes:
      verdicts: {task: one, or one per member}.
      constants: {task: the best constant outputs of one element, as `constants.fit_constant` has them}.
    """

    verdicts: dict[str, tuple[Verdict, ...]]
    constants: dict[str, Any]

    def member(self, index: int) -> "Fallback":
        """That of one of several members."""
        return Fallback({n: (v[index],) for n, v in self.verdicts.items()}, self.constants)

    def stand_ins(self, layout: Layout, members: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{first: (what is left of the way [task], the constants [task, ...])} of groups in which a task falls back.

        With members, these are their first axis.
        """
        found = {}
        for names in layout.groups.values():
            if all(v.keeps == 1 for n in names for v in self.verdicts[n]):
                continue
            for n in names:
                keeps = np.asarray([v.keeps for v in self.verdicts[n]], np.float32)
                constants = np.broadcast_to(np.asarray(self.constants[n], np.float32),
                                            (len(keeps), *np.shape(self.constants[n])))  # fmt: skip
                found[n] = (keeps, constants) if members else (keeps[0], constants[0])
        return layout.stack(found, int(members))

    def lines(self, tasks: Sequence[Task], all_of_them: bool = True) -> list[str]:
        """What is said of each task, by default also of those that fall back on nothing and were judged."""
        found = []
        for task in tasks:
            each = self.verdicts[task.name]
            for i, verdict in enumerate(each):
                who = f"task {task.name!r}" + (f", member {i}" if len(each) > 1 else "")
                if all_of_them or verdict.keeps < 1:
                    found.append(f"{who}: {said(task, verdict, self.constants[task.name])}")
        return found

    def content(self) -> dict[str, Any]:
        """As JSON has it; what is not finite is None."""

        def plain(verdict: Verdict) -> dict[str, Any]:
            fields = dataclasses.asdict(verdict)
            return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}

        return {
            n: {"verdicts": [plain(v) for v in each], "constant": np.asarray(self.constants[n]).tolist()}
            for n, each in self.verdicts.items()
        }

    @classmethod
    def read(cls, content: Mapping[str, Any], tasks: Sequence[Task]) -> "Fallback":
        """Back from `content`; a ValueError for anything else."""
        kinds = {"keeps": float, "score": float, "error": float, "units": int, "grouped": bool, "why": str}
        try:
            verdicts = {
                t.name: tuple(
                    Verdict(**{k: kinds[k](math.nan if x is None else x) for k, x in v.items()})
                    for v in content[t.name]["verdicts"]
                ) for t in tasks
            }  # fmt: skip
            constants = {t.name: np.asarray(content[t.name]["constant"], np.float32) for t in tasks}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no fallback: {error!r}") from error
        if any(len(v) != 1 or not 0 <= v[0].keeps <= 1 for v in verdicts.values()):
            raise ValueError("this is no fallback: 'keeps' must be one number in [0, 1] per task")
        return cls(verdicts, constants)


def toward(
    constant: Float[Array, "..."], outputs: Float[Array, "..."], keeps: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`keeps` of the way from the constant to the outputs; at the ends exactly one or the other, whatever it holds."""
    constant = jnp.broadcast_to(constant, outputs.shape)
    between = constant + keeps * (outputs - constant)
    return jnp.where(keeps <= 0, constant, jnp.where(keeps >= 1, outputs, between))


def stood_in(layout: Layout, outputs: dict[str, Any], stand_ins: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """A model's stacked outputs, where a task falls back moved toward its constant; others as they are."""

    def of_task(task: Task, given: Any, standing: tuple[Array, Array] | None) -> Any:
        if standing is None:
            return given
        keeps, constant = standing
        return toward(constant, one_output(task, given), keeps)

    return layout.each(of_task, outputs, stand_ins)


def said(task: Task, verdict: Verdict, constant: Any) -> str:
    """A verdict in words."""
    if verdict.why:
        return f"not judged against the best constant ({verdict.why}); its predictions are the model's"
    of = f"over {verdict.units} {'group' if verdict.grouped else 'row'}{'s' if verdict.units != 1 else ''}"
    score = f"score {verdict.score:.2f}" if math.isfinite(verdict.score) else "its loss there is not finite"
    if math.isfinite(verdict.error):
        score += f", standard error {verdict.error:.2f}"
    measured = f"on validation ({score} {of})"
    if verdict.keeps >= 1:
        held = "better than the best constant" if verdict.score > 0 else "not beyond doubt worse than the best constant"
        return f"{held} {measured}"
    beyond = " beyond the noise between groups" if verdict.grouped and verdict.score > 0 else ""
    doubt = f"no better than the best constant{beyond}"
    if verdict.keeps <= 0:
        return f"{doubt} {measured}: predicts the constant {shown(task, constant)}"
    return (f"{doubt} {measured}: its predictions are moved toward the constant {shown(task, constant)}, with "
            f"{verdict.keeps:.0%} of the way to the model's left")  # fmt: skip


def shown(task: Task, constant: Any) -> str:
    """A constant as users read predictions: in the target's units, or frequencies."""
    values = np.asarray(prediction(task, jnp.asarray(constant, jnp.float32)[None])[0], np.float64)
    origin = origin_of(task)
    values = np.atleast_1d(values if origin is None else values + origin)
    names = task.classes if task.of_kind.labels != "numbers" and not task.of_kind.two else ()
    cells = [f"{n} {v:.3g}" for n, v in zip(names, values, strict=False)] or [
        f"{v:.5g}" if abs(v) < 1e5 else f"{v:.0f}" for v in values
    ]
    return ", ".join(cells[:SHOWN]) + (", ..." if len(cells) > SHOWN else "")


def write(directory: pathlib.Path, fallback: Fallback | None, variables: Any) -> None:
    """Writes ``fallback.json``, if there is one."""
    if fallback is not None:
        files.write_json(directory / FILE, {"variables": of_tree(variables), "tasks": fallback.content()})


def read(directory: pathlib.Path, tasks: Sequence[Task], variables: Any, asked: bool) -> Fallback | None:
    """That of a run, made with these variables; None, and a warning if the run was `asked` for it, where there is none.

    Raises:
      ValueError: naming the file, if it is damaged.
    """
    path = directory / FILE
    content = files.read_object(path, {"variables": str, "tasks": dict}) if path.exists() else None
    if content is None or content["variables"] != of_tree(variables):
        if asked or content is not None:
            warnings.warn(f"{directory}: its tasks were not judged against the best constants with the variables that "
                          "are loaded, as the fit did not come to its end; predictions are the model's own. The same "
                          "command again goes on with it", UserWarning, stacklevel=3)  # fmt: skip
        return None
    try:
        return Fallback.read(content["tasks"], tasks)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
