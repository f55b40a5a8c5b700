"""Every field that a training config may have, with its default; a config overrides what differs.

Those that are options of `fit` come from `mtl_jax.training.options`, with their words; `OWN` are the others. Fields of
`PARTS` take objects besides text, such as ``c.balancer = mtl.balancing.upgrad()``; flags cannot change them then.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

# field: (default, or the type of what may be None; what it is)
OWN = {
    "data": ("", 'a data set\'s call, such as "multi_digits(num_train=2000)".'),
    "data_dir": (str, "where its files are; None: the environment's MTL_JAX_DATA."),
    "encoder": ("mlp", 'an encoder\'s call, or "for_table": `encoders.for_table` of the data.'),
    "sharing": ("hard", "an architecture's call."),
    "learning_rate": (
        float,
        "of the optimizer; with a schedule, its peak. None: 0.001, or a method's own.",
    ),
    "schedule": ("constant", 'an optax schedule, such as "warmup_cosine_decay(warmup_steps=100)".'),
    "weight_decay_rules": ((), "((regex, bool), ...): where the optimizer's decay applies."),
    "dtype": ("float32", "of the encoder's computation; parameters are float32."),
    "beside_trees": (False, "after training, how boosted trees and a linear model do on the same rows of a table."),
}
PARTS = ("data", "encoder", "sharing", "balancer", "task_schedule", "optimizer")


class Config(ml_collections.ConfigDict):
    """Fields keep their types, but for those that name a part."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key in PARTS and not isinstance(value, str):
            with self.ignore_type():
                super().__setitem__(key, value)
        else:
            super().__setitem__(key, value)


def fields() -> dict[str, tuple]:
    """{field: (default, or the type of what may be None; what it is)} of all."""
    from mtl_jax.training import options

    return OWN | {n: (options.in_config(n), options.FIELDS[n].metadata["doc"]) for n in options.IN_CONFIGS}


def get_config() -> ml_collections.ConfigDict:
    """The defaults."""
    c = Config()
    for name, (default, _) in fields().items():
        c[name] = config_dict.placeholder(default) if isinstance(default, type) else default
    return c
