"""AdaShare (Sun et al., NeurIPS 2020, arXiv:1911.12423): which stages a task runs and which it skips is learned."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder, layers, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.annealing import decay_of
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.positions import at_positions_of
from mtl_jax.sharing.task_conditioned import Step, task_passes
from mtl_jax.stacking import over_tasks
from mtl_jax.tasks import Task


class Shortcut(nn.Module):
    """What goes around a stage: its input, resampled and mapped to the width of its output where shapes differ."""

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Any:
        del train
        wanted, around = values_of(read["x"]), at_positions_of(read["before"], read["x"])
        if around.shape[-1] != wanted.shape[-1]:
            around = nn.Dense(wanted.shape[-1], use_bias=False, dtype=wanted.dtype, name="map")(around)
        return {"x": read["x"], "around": around.astype(wanted.dtype)}


class Choice(nn.Module):
    """u F(x) + (1 - u) x: u is a Gumbel-softmax draw in training, and afterwards 1 or 0, whichever is likelier."""

    temperature: float
    final: float
    decay: float

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Any:
        logits = self.param("logits", nn.initializers.zeros, (2,))  # to run, to skip
        heat = self.variable("policy", "temperature", lambda: jnp.asarray(self.temperature, jnp.float32))
        if train:
            noise = jax.random.gumbel(self.make_rng("dropout"), (2,), logits.dtype) if self.has_rng("dropout") else 0
            run = jax.nn.softmax((logits + noise) / heat.value.astype(logits.dtype))[0]
            heat.value = jnp.maximum(heat.value * self.decay, self.final).astype(heat.value.dtype)
        else:
            run = (logits[0] >= logits[1]).astype(logits.dtype)
        values = values_of(read["x"])
        run = run.astype(values.dtype)
        return with_values(read["x"], run * values + (1 - run) * read["around"])


@architecture(
    paper="AdaShare, Sun et al., NeurIPS 2020, arXiv:1911.12423",
    when="which layers a task should skip is unknown; cost counts",
)
def adashare(
    encoder: Encoder,
    tasks: Sequence[Task],
    sparsity: float = 1e-3,
    sharing: float = 0.05,
    temperature: float = 5.0,
    final_temperature: float = 0.1,
    anneal_steps: int = 1000,
) -> MultiTaskModel:
    """One trunk whose stages each task runs or skips, as a policy of its own says, which is learned with the weights.

    Task t's logits of a stage are under ``tasks/<t>/policy``; `policies` reads the probabilities a_t off. The first
    stage always runs. A skipped stage is the identity; where its output has another shape than its input, what goes
    around it is resampled to the output's positions and has a linear map in common to its width, ``shared/shortcuts``,
    as the projections around a ResNet's blocks are. Only values are chosen: masks, and what else travels along, are the
    stage's. The temperature falls geometrically with a task's training passes and is part of the state; policies that
    are frozen choose as after training. Each task is a pass of its own.

    The penalty is `sparsity` sum_t sum_l -log(1 - a_tl) + `sharing` sum over pairs s, t and stages l of
    (L - l) / L |a_sl - a_tl|, l from 0: tasks part late rather than early.

    Where it departs from the paper: its sparsity is sum log a, which has no lower bound; this one is that of its code.
    Weights and policies learn from the same batches, all stages' policies at once, and the policy's network is not
    trained anew at the end.

    Source: AdaShare, Sun et al., NeurIPS 2020, arXiv:1911.12423.

    Args:
      encoder: the trunk, of two stages at least.
      tasks: on common inputs, or each on its own.
      sparsity, sharing: factors in the penalty, as above.
      temperature, final_temperature: at the first pass, and from pass `anneal_steps` on.
    """
    if sparsity < 0 or sharing < 0:
        raise ValueError(f"adashare: sparsity={sparsity} and sharing={sharing} must not be negative")
    decay = decay_of(temperature, final_temperature, anneal_steps, "adashare")
    free = [f"stage_{i}" for i in range(1, len(encoder.stages))]
    if not free:
        raise ValueError("adashare: the encoder has one stage, which always runs; give it more, or use sharing 'hard'")
    names, choice = [t.name for t in tasks], Choice(temperature, final_temperature, decay)
    steps = []
    for name, module in layers(encoder):
        steps.append(Step("shared/encoder", name, module))
        if name in free:
            steps.append(Step("shared/shortcuts", name, Shortcut(), before=True))
            steps.append(Step("own/policy", name, choice))

    def penalty(variables: Any) -> Float[Array, ""]:
        def own(tree: Any) -> Float[Array, "stage choice"]:
            return jnp.stack([tree["policy"][n]["logits"] for n in free])

        chances = jax.nn.log_softmax(over_tasks(variables["params"]["tasks"], names, own))
        runs = jnp.exp(chances[..., 0])
        apart = jnp.abs(runs[:, None] - runs).sum((0, 1)) / 2
        early = 1 - jnp.arange(len(free)) / len(free)
        return -sparsity * chances[..., 1].sum() + sharing * (early.astype(apart.dtype) * apart).sum()

    return task_passes(encoder, tasks, "adashare", steps, penalty=penalty)


def policies(run: Any) -> dict[str, dict[str, float]]:
    """{task: {stage: how likely it is to run}} of an `adashare` run, or of its variables; from 1/2 on it does.

    Raises:
      ValueError: if these are not an `adashare` model's, or those of several members.
    """
    tasks = getattr(run, "variables", run)["params"]["tasks"]
    own = {t: leaves["policy"] for t, leaves in tasks.items() if "policy" in leaves}
    if not own:
        raise ValueError("there is nothing under tasks/<t>/policy; policies reads an 'adashare' model")
    if np.ndim(jax.tree.leaves(own)[0]) > 1:
        raise ValueError("these are several members; take one with run.member(i)")
    return {
        t: {stage: float(jax.nn.softmax(jnp.asarray(x["logits"]))[0]) for stage, x in policy.items()}
        for t, policy in own.items()
    }
