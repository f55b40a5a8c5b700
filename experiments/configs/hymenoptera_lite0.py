"""Ants or bees by EfficientNet-Lite0 of ImageNet: `hymenoptera.py` says what training from scratch gives.

    python -m experiments.transfer --config=experiments/configs/hymenoptera_lite0.py \
        --source=efficientnet_lite0.safetensors --config.data_dir=DATA --workdir=runs/bees

It starts from two of ImageNet's 1,000 outputs, which are as good untrained. Test accuracy 94.1% of 153 photographs;
176 s of processor time. ``--method="probe"`` and others.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "hymenoptera(size=192)"
    c.encoder = ""  # the source's
    c.heads = {"insect": {"ants": 310, "bees": 309}}
    c.augment = {"flip": True, "zoom": (0.5, 1.0)}
    c.method = "bitfit"
    c.learning_rate = 1e-3
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "warmup_cosine_decay(warmup_steps=4)"
    c.batch_size = 32
    c.num_steps = 40
    c.eval_every = c.checkpoint_every = 4
    return c
