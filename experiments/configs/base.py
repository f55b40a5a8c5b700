"""Every field that a training config may have, with its default; a config overrides what differs.

Fields of `PARTS` take objects besides text, such as ``c.balancer = mtl.balancing.upgrad()``; flags cannot change them
then.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

PARTS = ("data", "encoder", "sharing", "balancer", "task_schedule", "optimizer")


class Config(ml_collections.ConfigDict):
    """Fields keep their types, but for those that name a part."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key in PARTS and not isinstance(value, str):
            with self.ignore_type():
                super().__setitem__(key, value)
        else:
            super().__setitem__(key, value)


def get_config() -> ml_collections.ConfigDict:
    """The defaults."""
    c = Config()
    c.data = ""  # a data set's call, such as "multi_digits(num_train=2000)"
    c.data_dir = config_dict.placeholder(str)  # None: the environment's MTL_JAX_DATA
    c.encoder = "mlp"  # or "for_table": `encoders.for_table` of the data
    c.sharing = "hard"
    c.balancer = "equal"
    c.task_schedule = "joint"  # which tasks train at which step, such as "alternating(by='size')"
    c.optimizer = "adam"
    c.learning_rate = 1e-3
    c.schedule = "constant"  # an optax schedule, such as "warmup_cosine_decay(warmup_steps=100)"
    c.batch_size = 128
    c.num_steps = 1000
    c.steps_per_dispatch = 50  # divides the next three
    c.eval_every = 100
    c.checkpoint_every = 100
    c.log_every = 50
    c.seed = 0
    c.mesh = config_dict.placeholder(int)  # devices that share each batch; None: all
    c.dtype = "float32"  # of the encoder's computation; parameters are float32
    c.parallel = "jit"  # or "pmap"
    c.engine = "auto"  # how per-task gradients are pulled: auto, map, vmap, columns, or a number of rows
    c.level = "parameters"  # or "features": by what they are taken
    c.balance_paths = ()  # regexes of the shared parameters whose gradients the balancer sees; () for all
    c.update_every = 1  # steps between updates of its weights
    c.objectives = "tasks"  # or "examples": balance every task on every example
    c.monitor = True  # log gradient norms, cosines and conflicts where the method has a Gramian
    c.freeze = ()  # regexes of parameter paths
    c.clip_norm = config_dict.placeholder(float)
    c.learning_rate_factors = ()  # ((regex, factor), ...) over parameter paths
    c.weight_decay_rules = ()  # ((regex, bool), ...): where the optimizer's decay applies
    c.l1 = 0.0
    c.l2 = 0.0
    c.patience = config_dict.placeholder(int)  # validations without improvement before stopping; None: never
    c.fallback = False  # tasks that do not beat the best constant on validation predict it
    c.beside_trees = False  # after training, how boosted trees and a linear model do on the same rows of a table
    c.nonfinite = "stop"  # or "skip_task"
    return c
