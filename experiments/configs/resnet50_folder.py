"""A ResNet-50 with ImageNet's weights, fine-tuned to a folder of your images that has a folder for each class.

    python -m experiments.transfer --config=experiments/configs/resnet50_folder.py:photos \
        --source=resnet50.safetensors --workdir=runs/photos

resnet50.safetensors: torchvision's or timm's weights, which you have to have: in PyTorch,
``torch.save(torchvision.models.resnet50(weights="DEFAULT").state_dict(), "resnet50.pth")``, then
``python scripts/convert_weights.py resnet50.pth resnet50.safetensors``; nothing is downloaded here.

The network's 25 million parameters train (``--method=probe``: its head; ``--method="lora(rank=8)"``: little more).
Images stay in their files (``lazy``) and are scaled to 256 pixels; a random part of each, 224 pixels wide, is seen in
each step. A call gives more arguments:
``--config="experiments/configs/resnet50_folder.py:from_image_folder(folder='photos', size=160, resize='pad')"``, with
``--config.augment.size=144`` then.
"""

from experiments.configs import image_folder


def get_config(folder: str = ""):
    return image_folder.of_folder(folder, "resnet50_folder.py")
