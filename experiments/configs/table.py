"""A model of a table, with the encoder and the options that were chosen on real ones.

    python -m experiments.train --config=experiments/configs/table.py:homes.csv,price,sold --workdir=runs/homes

The part after the colon is FILE,TARGET,...; or, for more arguments, a call (without separators, as configs have it):
``--config="experiments/configs/table.py:from_csv(path='homes.csv', targets=('price',), types={'zip': 'category'})"``.
`training.options_for_table` of that file are the defaults of the fields that `fit` takes. It ends with boosted trees
and linear models on the same rows (``--config.beside_trees=False``: none). Half a minute to some minutes on 2 CPU
cores. What the run predicts for new rows: ``python -m experiments.predict``.
"""

import warnings

from experiments.configs import base


def get_config(table: str = ""):
    import mtl_jax as mtl
    from mtl_jax import parts

    path, *targets = table.split(",")
    if not table.startswith("from_csv(") and not (path and all(targets) and targets):
        raise ValueError(f"the config table.py needs a file and the columns to predict, and has {table!r}; "
                         "--config=experiments/configs/table.py:FILE.csv,TARGET,... names them")  # fmt: skip
    c = base.get_config()
    called = table.startswith("from_csv(")
    c.data = table if called else parts.call("from_csv", {"path": path, "targets": tuple(targets)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the program says them when it reads the file
        options = mtl.training.options_for_table(mtl.data.load(c.data))
    every = options["eval_every"]
    c.encoder = "for_table"
    c.optimizer = "adamw(weight_decay=0.03)"
    c.learning_rate = 0.002
    c.batch_size = options["batch_size"]
    c.num_steps = options["num_steps"]
    c.patience = options["patience"]
    c.fallback = options["fallback"]
    c.beside_trees = True
    c.steps_per_dispatch = max(d for d in range(1, 51) if every % d == 0)
    c.eval_every = c.checkpoint_every = c.log_every = every
    return c
