"""A learned graph of task relations: attention over the tasks' representations says who helps whom.

Complete-graph message passing between tasks after Liu et al., "Learning Multi-Task Communication with Message Passing
for Sequence Learning", AAAI 2019, with the scaled dot products of Vaswani et al., NeurIPS 2017, arXiv:1706.03762.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mtl_jax import parts
from mtl_jax.batch import PerTask
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.messages import Projection
from mtl_jax.sharing.places import split_stages
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


@architecture(
    paper='Liu et al., "Learning multi-task communication with message passing for sequence learning", AAAI 2019',
    when="tasks whose relations are to be learned and read",
)
def relation_graph(
    encoder: Encoder, tasks: Sequence[Task], keys: int = 16, shared_stages: int | None = None
) -> MultiTaskModel:
    """Task t reads f_t + sum_s a_ts V_s f_s, where a_ts = softmax_s((Q_t r_t) . (K_s r_s) / sqrt(keys)).

    f_s are task s's features and r_s their mean over positions, so that every example has one matrix a, whose row t
    says which tasks t listens to, itself among them. Logged as ``relation/<t>/<s>``: a_ts averaged over the batch
    (`relations` makes a matrix of them). Queries are under ``tasks/<t>/query``; keys and values, which every task
    reads, under ``shared/relation/<s>``, and the tasks' own stages under ``shared/branches/<s>``.

    Where it departs from the paper: the paper passes messages between LSTMs word by word, over a complete graph or
    through a common node; here whole features are exchanged once, and the weights are the scaled dot products of
    attention.

    Source: Liu et al., "Learning multi-task communication with message passing for sequence learning", AAAI 2019.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others.
      tasks: on common inputs.
      keys: width of queries and keys.
      shared_stages: None for all: tasks then differ by their maps only.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    if keys < 1:
        raise ValueError(f"relation_graph: keys={keys} must be at least 1")
    trunk, branch = split_stages(encoder, shared_stages, "relation_graph")
    others = sorted(names)

    def listen(at: Any, x: Any, key: Any, value: Any) -> tuple[Any, Any]:
        """(a task's features with what it reads of all, how much it reads of each)."""
        query = at([("query", Projection(keys))], "own", mean_over_positions(x))
        scores = jnp.einsum("bd,sbd->bs", query, key) / keys**0.5
        attention = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), -1)
        mixed = jnp.einsum("bs,sb...->b...", attention.astype(value.dtype), value)
        return with_values(x, values_of(x) + mixed), attention.mean(0)

    def walk(at: Any, inputs: Any) -> PerTask:
        x, key, value = at(trunk, "shared/encoder", inputs), [], []
        x = {n: at(branch, f"shared/branches/{n}", x) for n in names}
        for n in others:
            place, values = f"shared/relation/{n}", values_of(x[n])
            key.append(at([("key", Projection(keys))], place, mean_over_positions(x[n])))
            value.append(at([("value", Projection(values.shape[-1]))], place, values))
        features, attention = at.each(listen, PerTask(x), jnp.stack(key), jnp.stack(value))
        at.metrics |= {f"relation/{n}/{s}": attention[n][i] for n in at.wanted for i, s in enumerate(others)}
        return features

    return walked("relation_graph", encoder, tasks, walk)


def relations(metrics: Mapping[str, Any], names: Sequence[str]) -> Float[Any, "task task"]:
    """[K, K], who listens to whom: entry (t, s) is a_ts, averaged over a batch; each row sums to 1.

    Args:
      metrics: what a pass of `relation_graph` reports (``aux["metrics"]``), or a training record of ``run.history``.
      names: tasks, in the order of the rows and columns.
    """
    prefix = "aux/" if any(k.startswith("aux/relation/") for k in metrics) else ""
    rows = [[f"{prefix}relation/{t}/{s}" for s in names] for t in names]
    for key in [k for row in rows for k in row if k not in metrics]:
        raise parts.unknown("relation", key, [k for k in metrics if "relation/" in k])
    return jnp.asarray([[metrics[k] for k in row] for row in rows])
