"""The face models that InstantID was trained with."""

from typing import Final

from refiners_core.models.face import FacePack

ANTELOPE: Final = FacePack(
    name="antelopev2",
    files=("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
    extra="refiners-instantid[insightface]",
    is_normed=False,
)
"""The pack `antelopev2` of insightface, of which InstantID reads raw embeddings."""
