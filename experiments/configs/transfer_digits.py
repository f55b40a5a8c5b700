"""The trunk of a multi_digits run carried to "is the left digit the greater?", with 100 labels.

    python -m experiments.transfer --config=experiments/configs/transfer_digits.py --source=runs/multi_digits \
        --workdir=runs/greater

Frozen by default; ``--config.freeze="()"`` fine-tunes. About ten seconds on 2 CPU cores.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "multi_digits(tasks=('left_gt_right',))"
    c.encoder = ""  # the source's
    c.sharing = ""  # the source's
    c.freeze = ("shared/.*",)
    c.load = (("shared/.*", True),)  # ((regex, bool), ...): what is taken from the source
    c.method = ""  # a fine-tuning method, such as "lora(rank=4)"; with one, freeze is best left empty
    c.num_labels = 100  # training rows to keep; 0: all
    c.batch_size = 32
    c.num_steps = 300
    return c
