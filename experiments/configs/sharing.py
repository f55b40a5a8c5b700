"""Any architecture over any encoder, on real data that suits the encoder.

    python -m experiments.train --config=experiments/configs/sharing.py:mmoe,cnn --workdir=runs/mmoe

The part after the colon is SHARING,ENCODER by name; ``--config.sharing="mmoe(experts=8)"`` sets arguments. Images come
from multi_digits (three tasks); tables from Tox21 (twelve assays, many labels missing); spoken digits from FSDD (digit
and speaker); sentences from ATIS (intent, and slots word by word). The last three need ``--config.data_dir=DATA`` or
MTL_JAX_DATA. Half a minute to
some minutes on 2 CPU cores.
"""

from experiments.architectures import with_tasks
from experiments.configs import base

# {name: (encoder, its number of stages, data)}
ENCODERS = {
    "linear": ("linear(features=64)", 1, "multi_digits"),
    "mlp": ("mlp(features=(128, 64))", 2, "multi_digits"),
    "cnn": ("cnn(features=(16, 32))", 2, "multi_digits"),
    "vit": ("vit(width=64, depth=2, heads=4, patch=4)", 3, "multi_digits"),
    "unet": ("unet(features=(8, 16))", 3, "multi_digits"),
    "resnet": ("resnet(depth=20, width=8)", 3, "multi_digits"),
    "vgg": ("vgg(depth=11, width=8)", 5, "multi_digits(num_train=2000, num_val=500, num_test=500, enlarge=3)"),
    "multimodal": (
        "multimodal(encoders={'upper': 'cnn(features=(16,))', 'lower': 'cnn(features=(16,))'}, features=(64,))", 2,
        "multi_digits(views=True)",
    ),
    "tabular": ("tabular(features=(256, 128))", 2, "tox21"),
    "rnn": ("rnn(features=(64,), cell='gru', bidirectional=True)", 1, "fsdd"),
    "conv1d": ("conv1d(features=(64, 64), kernel=5, window=2)", 2, "fsdd"),
    "transformer": (
        "transformer(width=64, depth=2, heads=4, hidden=128, vocabulary=869, length=48, pool='none')", 3, "atis"
    ),
}  # fmt: skip
TASKS = {"multi_digits": ("left", "right", "sum"), "fsdd": ("speaker", "digit"), "atis": ("slots", "intent")}


def get_config(text="hard,mlp"):
    c = base.get_config()
    sharing, _, encoder = text.partition(",")
    c.encoder, stages, c.data = ENCODERS.get(encoder, (encoder, 1, "multi_digits"))
    # Earlier tasks feed later ones, and a tree keeps the last task apart; Tox21's assays have no such order.
    order = TASKS.get(c.data.partition("(")[0])
    c.sharing = with_tasks(sharing, order, stages) if order else sharing
    c.num_steps = 500
    return c
