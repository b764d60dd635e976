"""Published formats of base models: folders, single files, live pipelines."""

from refiners_core.models.formats.open import family_of, open_file, open_folder, open_model
from refiners_core.models.formats.pipeline import from_pipeline, is_pipeline, to_diffusers
from refiners_core.models.formats.single_file import (
    autoencoder_keys,
    single_file_keys,
)
from refiners_core.models.unet.original import unet_keys

__all__ = [
    "autoencoder_keys",
    "family_of",
    "from_pipeline",
    "is_pipeline",
    "open_file",
    "open_folder",
    "open_model",
    "single_file_keys",
    "to_diffusers",
    "unet_keys",
]
