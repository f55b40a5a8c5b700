"""A VGG-16 with ImageNet's weights, fine-tuned to a folder of your images that has a folder for each class.

    python -m experiments.transfer --config=experiments/configs/vgg16_folder.py:photos --source=vgg16.safetensors \
        --workdir=runs/photos

vgg16.safetensors: torchvision's weights, which you have to have: in PyTorch,
``torch.save(torchvision.models.vgg16(weights="DEFAULT").state_dict(), "vgg16.pth")``, then
``python scripts/convert_weights.py vgg16.pth vgg16.safetensors``; nothing is downloaded here.

Its convolutions are kept, and a new layer reads what they make of an image, 7 x 7 x 512 numbers: the three dense
layers of ImageNet are left out.
Images stay in their files (``lazy``) and are scaled to 256 pixels; a random part of each, 224 pixels wide, is seen in
each step. A call gives more arguments:
``--config="experiments/configs/vgg16_folder.py:from_image_folder(folder='photos', size=160, resize='pad')"``, with
``--config.augment.size=144`` then.
"""

from experiments.configs import image_folder


def get_config(folder: str = ""):
    return image_folder.of_folder(folder, "vgg16_folder.py")
