"""How tasks share an encoder. `NAMES` lists the architectures that a config can name."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.encoders import Encoder
from mtl_jax.model import MultiTaskModel, forward, merge, spread
from mtl_jax.sharing.adapters import adapters
from mtl_jax.sharing.adashare import adashare, policies
from mtl_jax.sharing.aitm import aitm
from mtl_jax.sharing.branched import branched
from mtl_jax.sharing.cascade import cascade
from mtl_jax.sharing.cgc import cgc
from mtl_jax.sharing.cooperative import cooperative
from mtl_jax.sharing.cross_stitch import cross_stitch
from mtl_jax.sharing.dmtrl import dmtrl
from mtl_jax.sharing.dselect_k import dselect_k
from mtl_jax.sharing.esmm import esmm
from mtl_jax.sharing.film import film
from mtl_jax.sharing.fully_shared import fully_shared
from mtl_jax.sharing.go_mtl import go_mtl
from mtl_jax.sharing.hard import hard, independent
from mtl_jax.sharing.hypernetwork import hypernetwork
from mtl_jax.sharing.learning_to_branch import discrete_tree, learning_to_branch
from mtl_jax.sharing.mmoe import mmoe
from mtl_jax.sharing.mtan import mtan
from mtl_jax.sharing.nddr import nddr
from mtl_jax.sharing.one_task import one_task
from mtl_jax.sharing.ple import ple
from mtl_jax.sharing.relation_graph import relation_graph, relations
from mtl_jax.sharing.sluice import sluice
from mtl_jax.sharing.soft import soft
from mtl_jax.sharing.taps import taps
from mtl_jax.sharing.task_embedding import task_embedding
from mtl_jax.sharing.task_routing import task_routing
from mtl_jax.sharing.walk import OWN_INPUTS
from mtl_jax.tasks import Task

# Parallel, feature mixing, experts, task-conditioned, soft, sequential and cooperative, funnels, learned structure.
NAMES = {
    "hard": hard, "independent": independent, "fully_shared": fully_shared,
    "cross_stitch": cross_stitch, "sluice": sluice, "nddr": nddr, "mtan": mtan,
    "mmoe": mmoe, "cgc": cgc, "ple": ple, "dselect_k": dselect_k,
    "film": film, "adapters": adapters, "task_embedding": task_embedding,
    "hypernetwork": hypernetwork, "task_routing": task_routing,
    "soft": soft, "taps": taps, "go_mtl": go_mtl, "dmtrl": dmtrl,
    "cascade": cascade, "cooperative": cooperative, "relation_graph": relation_graph,
    "esmm": esmm, "aitm": aitm,
    "adashare": adashare, "learning_to_branch": learning_to_branch, "branched": branched,
}  # fmt: skip


def build(text: str, encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """The model that `text` names, such as ``"hard(shared_stages=1)"``, over an encoder and tasks.

    ``"adapted(sharing='hard()', method='lora()')"`` is the one that `transfer.methods.attach` makes.
    """
    if text.startswith("adapted("):
        from mtl_jax.transfer.methods import adapted  # only a run that was adapted needs it

        return parts.build(text, {"adapted": adapted}, "sharing", encoder, tasks)
    return parts.build(text, NAMES, "sharing", encoder, tasks)


__all__ = [
    "NAMES", "OWN_INPUTS", "MultiTaskModel", "build", "discrete_tree", "forward", "merge", "one_task", "policies",
    "relations", "spread", *NAMES,
]  # fmt: skip
