"""Cooperation in rounds: tasks exchange messages over shared parameters and refine their features with them.

Messages of outputs after He et al., "An Interactive Multi-Task Learning Network for End-to-End Aspect-Based Sentiment
Analysis", ACL 2019, arXiv:1906.06906; gated features after PAD-Net (Xu et al., CVPR 2018, arXiv:1805.04409).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from mtl_jax import heads, parts
from mtl_jax.batch import PerTask
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing import messages
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.messages import Projection
from mtl_jax.sharing.neighbours import Neighbours
from mtl_jax.sharing.places import split_stages
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names

MESSAGES = ("outputs", "features", "distillation")


@architecture(
    paper=(
        "outputs: IMN, He et al., ACL 2019, arXiv:1906.06906; distillation: PAD-Net, Xu et al., CVPR 2018, "
        "arXiv:1805.04409"
    ),
    when="tasks whose predictions help each other, order unknown",
)
def cooperative(
    encoder: Encoder,
    tasks: Sequence[Task],
    rounds: int = 1,
    message: str = "outputs",
    shared_stages: int | None = None,
) -> MultiTaskModel:
    """Each task's features f_t start as the trunk's, and are refined `rounds` times with all tasks' messages m_s:

        f_t <- f_t + U relu(V f_t + O_t m_t + mean_{s != t} M_s m_s)

    m_s are the soft outputs of task s's head on f_s ("outputs"), or f_s itself, so that M_s is a projection of features
    ("features"). "distillation" is PAD-Net's attention-guided message instead, with two maps per pair of tasks:

        f_t <- f_t + sum_{s != t} sigmoid(W_ts f_s) * (V_ts f_s)

    W and V see neighbours: 3 x 3 over images, three wide over sequences, dense on vectors. All other maps are linear
    per position, so that tokens and pixels exchange their own messages. The same parameters serve every round and are
    under ``shared/exchange``. The tasks' own stages (``shared/branches/<t>``) and, with messages of
    outputs, their heads (``shared/heads/<t>``) are shared as well: every loss reaches them. 0 rounds are hard sharing.

    Where it departs from the paper: IMN replaces features by what it makes of the message, here they are refined.
    PAD-Net's message starts from intermediate predictions with losses of their own; here from features. The gate reads
    the message, as published implementations have it.

    Source: outputs: IMN, He et al., ACL 2019, arXiv:1906.06906; distillation: PAD-Net, Xu et al., CVPR 2018,
    arXiv:1805.04409.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others.
      tasks: on common inputs.
      rounds: how often messages are exchanged.
      message: "outputs", "features" or "distillation".
      shared_stages: None for all.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    if rounds < 0:
        raise ValueError(f"cooperative: rounds={rounds} must be at least 0")
    if message not in MESSAGES:
        raise parts.unknown("message of cooperative", message, MESSAGES)
    trunk, branch = split_stages(encoder, shared_stages, "cooperative")
    heads_are_read = rounds > 0 and message == "outputs"
    if heads_are_read:
        messages.check_kinds(tasks, "cooperative")
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}
    place = "shared/exchange"

    def outputs(at: Any, x: dict[str, Any]) -> dict[str, Any]:
        return {n: at([(n, modules[n])], "shared/heads", x[n]) for n in names}

    def refine(at: Any, x: dict[str, Any]) -> dict[str, Any]:
        if message == "outputs":
            told = outputs(at, x)
            told = {t.name: messages.soft(t, told[t.name]) for t in tasks}
            told = {n: with_values(x[n], m) if m.ndim == values_of(x[n]).ndim else m for n, m in told.items()}
        else:
            told = x
        told = {n: messages.fit_to(told[n], x[n]) for n in names}
        new = {}
        for n in names:
            values, others = values_of(x[n]), [s for s in sorted(names) if s != n]
            width = values.shape[-1]
            if message == "distillation":
                for s in others:
                    said = with_values(x[n], told[s])
                    gate = nn.sigmoid(at([(s, Neighbours(width))], f"{place}/gates/{n}", said))
                    values = values + gate * at([(s, Neighbours(width))], f"{place}/messages/{n}", said)
            else:
                hidden = at([("hidden", Projection(width, bias=True))], place, values)
                hidden = hidden + at([(n, Projection(width))], f"{place}/own", told[n]).astype(values.dtype)
                if others:
                    sent = [at([(s, Projection(width))], f"{place}/others", told[s]) for s in others]
                    hidden = hidden + (sum(sent) / len(sent)).astype(values.dtype)
                values = values + at([("out", Projection(width))], place, nn.relu(hidden))
            new[n] = with_values(x[n], values)
        return new

    def walk(at: Any, inputs: Any) -> Any:
        x = at(trunk, "shared/encoder", inputs)
        if not rounds:
            return x
        x = {n: at(branch, f"shared/branches/{n}", x) for n in names}
        for _ in range(rounds):
            x = refine(at, x)
        x = outputs(at, x) if heads_are_read else x
        return PerTask({n: x[n] for n in at.wanted})

    def finish(at: Any, x: Any) -> Any:
        if heads_are_read:
            return x
        x = x if rounds else at(branch, "own/encoder", x)
        return at([("head", modules[at.task])], "own", x)

    return walked("cooperative", encoder, tasks, walk, finish, features="per_task" if rounds else "common")
