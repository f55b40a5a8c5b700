"""The entire space multi-task model (ESMM; Ma et al., SIGIR 2018): a click, and then a conversion given the click."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, no_penalty
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.encoder_copies import common_inputs
from mtl_jax.sharing.funnel import check_funnel, labels_of_all_rows
from mtl_jax.sharing.places import Running, Starting, chosen, split_stages
from mtl_jax.tasks import Task, check_names


def both(first: Float[Array, "..."], second: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logit of sigmoid(first) sigmoid(second): of p q, 1 / (p q) - 1 = e^-a + e^-b + e^-(a + b)."""
    return -jnp.logaddexp(jnp.logaddexp(-first, -second), -first - second)


@architecture(
    paper="ESMM, Ma et al., SIGIR 2018, arXiv:1804.07931",
    when="conversions after clicks, of which few are seen",
)
def esmm(
    encoder: Encoder, tasks: Sequence[Task], click: str, conversion: str, shared_stages: int = 1
) -> MultiTaskModel:
    """Two towers whose chances multiply: P(click and conversion) = P(click) P(conversion given click), over all rows.

    The conversion's outputs are logits of the product, pCTCVR = pCTR pCVR, so that its loss, with labels over all rows
    (0 where there was no click), is the paper's: the tower of pCVR learns from all rows, not from clicked ones alone.
    `predict` gives pCTR and pCTCVR; their quotient is pCVR. The click's tower learns from both losses, and is under
    ``shared/branches/<click>`` and ``shared/heads/<click>``; the conversion's is under ``tasks/<conversion>``. Other
    tasks have stages and a head of their own on the same trunk.

    Where it departs from the paper: towers are the encoder's later stages and the tasks' heads, and what is shared may
    be more than embeddings.

    Source: ESMM, Ma et al., SIGIR 2018, arXiv:1804.07931.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others.
      tasks: on common inputs.
      click, conversion: names of two binary tasks.
      shared_stages: None for all: then a tower is a head.

    Raises:
      ValueError: for tasks that are none of these; when training, for rows without a click that have a conversion, or
        no label of it.
    """
    tasks = check_names(tasks)
    pair = check_funnel((click, conversion), tasks, "esmm")
    names, modules = tuple(t.name for t in tasks), {t.name: heads.build(t, encoder.members) for t in tasks}
    trunk, tower = split_stages(encoder, shared_stages, "esmm")

    def walk(at: Any, inputs: Any, wanted: Sequence[str]) -> dict[str, Any]:
        """{task: what decode gets}."""
        x = at(trunk, "shared/encoder", inputs)
        found = dict.fromkeys(wanted, x)
        if click in wanted or conversion in wanted:
            clicked = at([(click, modules[click])], "shared/heads", at(tower, f"shared/branches/{click}", x))
            found |= {click: clicked, conversion: {"x": x, "clicked": clicked}}
        return {name: found[name] for name in wanted}

    def finish(at: Any, name: str, x: Any) -> Outputs:
        """From what encode returns to outputs."""
        if name == click:
            return x
        inner = at(tower, f"tasks/{name}/encoder", x["x"] if name == conversion else x)
        outputs = at([("head", modules[name])], f"tasks/{name}", inner)
        return jax.tree.map(both, x["clicked"], outputs) if name == conversion else outputs

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        at = Starting(rng)
        for name, x in walk(at, common_inputs(batch, "esmm"), names).items():
            finish(at, name, x)
        return at.variables

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        at = Running(variables, train, rng)
        return PerTask(walk(at, common_inputs(batch, "esmm"), chosen(names, tasks))), at.changed, NO_AUX

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Outputs], dict]:
        at = Running(variables, train, rng)
        return {name: finish(at, name, x) for name, x in features.items()}, at.changed

    return MultiTaskModel(
        tasks, "per_task", init, encode, decode, no_penalty, encoder,
        alike=lambda name: name if name in pair else (), check=labels_of_all_rows(pair, "esmm"),
    )  # fmt: skip
