"""Twelve toxicity assays with 17% of the labels missing, short enough to compare methods on.

    python -m experiments.compare --config=experiments/configs/compare_tox21.py --config.data_dir=DATA \
        --workdir=runs/compare_tox21 --seeds=3

Six methods and the single-task baseline: about four minutes on 2 CPU cores. Mean test AUROC is 0.79 to 0.82.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "tox21"
    c.encoder = "mlp(features=(128, 64), dropout=0.3)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.num_steps = 400
    c.eval_every = 50
    c.checkpoint_every = 200
    return c
