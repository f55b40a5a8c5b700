"""Twelve toxicity assays of Tox21 with their missing labels, from hashed n-grams of SMILES strings.

    python -m experiments.train --config=experiments/configs/tox21.py --config.data_dir=DATA --workdir=runs/tox21

About 20 seconds on 2 CPU cores. Mean test AUROC is near 0.79.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "tox21"
    c.encoder = "mlp(features=(256, 128), dropout=0.3)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.num_steps = 1000
    c.patience = 5
    return c
