"""Cascades: tasks in an order or a graph, where earlier tasks' outputs and features enter later ones.

Hashimoto et al., "A Joint Many-Task Model: Growing a Neural Network for Multiple NLP Tasks", EMNLP 2017,
arXiv:1611.01587: label embeddings of soft outputs, features passed upwards, and successive regularisation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtl_jax import heads, parts
from mtl_jax.batch import PerTask
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel, no_penalty
from mtl_jax.sharing import messages
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.places import split_stages
from mtl_jax.sharing.successive import successive_regularization
from mtl_jax.sharing.task_graph import Edges, task_graph
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names

PASS = {"features": ("features",), "outputs": ("outputs",), "both": ("features", "outputs")}


@architecture(
    paper="JMT, Hashimoto et al., EMNLP 2017, arXiv:1611.01587",
    when="tasks in a known order, such as tagging before parsing",
)
def cascade(
    encoder: Encoder,
    tasks: Sequence[Task],
    edges: Edges | None = None,
    order: Sequence[str] | None = None,
    pass_: str = "outputs",
    shared_stages: int | None = None,
    stop_gradient: bool = False,
    teacher_forcing: bool = False,
    successive: float = 0.0,
    successive_every: int | None = None,
    reference: Mapping[str, Any] | None = None,
) -> MultiTaskModel:
    """A trunk in common; task j's own stages and head start from x_j = x + sum_i (E_ij y_i + W_ij f_i), i its parents.

    x are the trunk's features, y_i the soft outputs of task i (probabilities, or standardised values) and f_i the
    features in front of its head. E_ij are label embeddings: sum_c p(c) E_ij[c] (Hashimoto et al., section 2). A sum of
    linear maps is a linear map of the concatenation, and leaves the width as the encoder's stages expect it. Vector
    outputs are read at every token or pixel, outputs per token or pixel where they are.

    What other tasks read is under ``shared``: ``branches/<i>``, ``edges/<i>`` and, with outputs, ``heads/<i>``,
    whatever `stop_gradient` says. A task that nobody reads has its stages, edges and head under ``tasks/<t>``. Without
    edges this is hard sharing. Tasks may have inputs of their own: a task's parents then run on that task's inputs, and
    labels are not forced, since other tasks' labels belong to other rows.

    Where it departs from the paper: the paper is about sentences and concatenates what is passed up; here it is added,
    by maps that can do the same, and every kind of task may be passed on.

    Source: JMT, Hashimoto et al., EMNLP 2017, arXiv:1611.01587.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others.
      tasks: on common inputs, or each on its own.
      edges: pairs (from, to) of task names, without cycles.
      order: in place of edges: each task reads all those before it; tasks that are not named read none.
      pass_: "outputs", "features" or "both".
      shared_stages: None for all.
      stop_gradient: later tasks do not train earlier ones.
      teacher_forcing: in training, labels (one-hot, or standardised) enter in place of outputs where there are any.
      successive: factor of |theta - theta'|^2 over all shared parameters, which keeps later tasks from undoing earlier
        ones. theta' is what training starts from, taken anew every `successive_every` training passes (in the paper, at
        the end of a task's epoch); it is part of the state.
      successive_every: None keeps theta' as it is.
      reference: theta' given as {path: array}; shared parameters that it lacks are not held.

    Raises:
      ValueError: for a cycle, an unknown task, or options that do not go together.
    """
    tasks = check_names(tasks)
    by_name = {t.name: t for t in tasks}
    graph = task_graph(tuple(by_name), edges, order, "cascade")
    passed = parts.lookup(pass_, PASS, "pass_ of cascade")
    trunk, branch = split_stages(encoder, shared_stages, "cascade")
    senders = [t for t in tasks if t.name in graph.senders]
    if "features" in passed and senders and not branch:
        raise ValueError(
            f"cascade: pass_={pass_!r} needs stages of each task's own and shared_stages={shared_stages} leaves none; "
            f"give shared_stages below {len(encoder.stages)}, or pass_='outputs'"
        )
    if "outputs" in passed:
        messages.check_kinds(senders, "cascade")
    if teacher_forcing and "outputs" not in passed:
        raise ValueError("cascade: teacher_forcing replaces outputs, which pass_='features' does not pass")
    for task in senders if teacher_forcing else ():
        if task.of_kind.scaled and task.scaler is None:
            raise ValueError(
                f"cascade: teacher_forcing needs the scale of task {task.name!r}; give it a scaler, as the tasks of a "
                "data set have (Scaler((0.0,), (1.0,)) for targets that are used as they are)"
            )
    held = successive_regularization(successive, successive_every, reference, "cascade")
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def walk(at: Any, inputs: Any) -> PerTask:
        x, ready, sent, needed = at(trunk, "shared/encoder", inputs), {}, {}, graph.needed(at.wanted)
        for name in [n for n in graph.order if n in needed]:
            place = f"shared/edges/{name}" if name in graph.senders else f"tasks/{name}/edges"
            forced = teacher_forcing and at.task is None and at.on(place)
            here = values_of(x)
            for parent in graph.parents[name]:
                for what, message in sent[parent].items():
                    if forced and what == "outputs" and parent in at.batch.targets:
                        labels = at.batch.targets[parent], at.batch.masks[parent]
                        message = with_values(message, messages.labelled(by_name[parent], values_of(message), *labels))
                    edge = [(parent, messages.Projection(values_of(x).shape[-1]))]
                    here = here + at(edge, f"{place}/{what}", messages.fit_to(message, x)).astype(here.dtype)
            here = with_values(x, here)
            if name in graph.senders:
                here = at(branch, f"shared/branches/{name}", here)
                told = {"features": here} if "features" in passed else {}
                if "outputs" in passed:
                    outputs = at([(name, modules[name])], "shared/heads", here)
                    soft = messages.soft(by_name[name], outputs)
                    told["outputs"] = with_values(here, soft) if soft.ndim == values_of(here).ndim else soft
                    here = outputs
                sent[name] = jax.lax.stop_gradient(told) if stop_gradient else told
            ready[name] = here
        return PerTask({name: ready[name] for name in at.wanted})

    def finish(at: Any, x: Any) -> Any:
        """From what encode returns to outputs."""
        if at.task in graph.senders and "outputs" in passed:
            return x
        x = x if at.task in graph.senders else at(branch, "own/encoder", x)
        return at([("head", modules[at.task])], "own", x)

    model = walked(
        "cascade", encoder, tasks, walk, finish, start=None, alike=lambda name: name in graph.senders,
        penalty=held.penalty if held else no_penalty,
    )  # fmt: skip
    return held.kept_by(model) if held and held.start else model
