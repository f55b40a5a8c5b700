"""How tasks share an encoder. `NAMES` lists the architectures that a config can name."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.encoders import Encoder
from mtl_jax.sharing.branched import branched
from mtl_jax.sharing.cascade import cascade
from mtl_jax.sharing.cooperative import cooperative
from mtl_jax.sharing.cross_stitch import cross_stitch
from mtl_jax.sharing.experts import mmoe
from mtl_jax.sharing.film import film
from mtl_jax.sharing.hard import hard, independent
from mtl_jax.sharing.learning_to_branch import discrete_tree, learning_to_branch
from mtl_jax.sharing.model import MultiTaskModel, forward, merge, spread
from mtl_jax.sharing.relation_graph import relation_graph, relations
from mtl_jax.tasks import Task

NAMES = {"hard": hard, "independent": independent, "cross_stitch": cross_stitch, "mmoe": mmoe, "film": film}
NAMES |= {"cascade": cascade, "cooperative": cooperative, "relation_graph": relation_graph}
NAMES |= {"learning_to_branch": learning_to_branch, "branched": branched}


def build(text: str, encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """The model that `text` names, such as ``"hard(shared_stages=1)"``, over an encoder and tasks."""
    return parts.build(text, NAMES, "sharing", encoder, tasks)


__all__ = ["NAMES", "MultiTaskModel", "build", "discrete_tree", "forward", "merge", "relations", "spread", *NAMES]
