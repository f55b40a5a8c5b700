"""What configs that fine-tune a network of ImageNet to a user's folder of images have in common."""

from experiments.configs import base


def of_folder(folder: str, config: str):
    """The config of a folder with a folder for each class, or of a call of `mtl.data.from_image_folder`.

    Args:
      folder: what follows the colon on the command line.
      config: the name of the file that asks, for messages.
    """
    from mtl_jax import parts

    if not folder:
        raise ValueError(f"the config {config} needs a folder of images, with a folder for each class inside; "
                         f"--config=experiments/configs/{config}:FOLDER names it")  # fmt: skip
    called = folder.startswith("from_image_folder(")
    given = {"folder": folder, "size": 256, "resize": "cover", "lazy": True}
    c = base.get_config()
    c.data = folder if called else parts.call("from_image_folder", given)
    c.encoder = ""  # the source's
    c.method = "full"  # or another fine-tuning method, such as "probe", "lora(rank=8)" or "lp_ft"; --method says it too
    c.augment = {"flip": True, "zoom": (0.25, 1.0), "size": 224}  # while it trains, on the device
    c.batch_size = 32
    c.steps_per_dispatch = 10
    c.num_steps = 1000
    return c
