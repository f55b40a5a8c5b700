"""Image files as arrays of bytes: how one is decoded, and data sets of folders of them. The extra ``images`` has what
it takes (Pillow, Grain).
"""

from mtl_jax.data.images.decoding import read_images
from mtl_jax.data.images.folders import from_image_folder
from mtl_jax.data.images.lazily import ImageFiles

__all__ = ["ImageFiles", "from_image_folder", "read_images"]
