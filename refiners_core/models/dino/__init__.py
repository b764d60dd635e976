"""DINOv2's encoder of images (arXiv:2304.07193)."""

from refiners_core.models.dino.config import DinoConfig
from refiners_core.models.dino.image import DinoImageEncoder
from refiners_core.models.dino.layout import DINO_KEYS
from refiners_core.models.dino.pixels import dino_pixels

__all__ = ["DINO_KEYS", "DinoConfig", "DinoImageEncoder", "dino_pixels"]
