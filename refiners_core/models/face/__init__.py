"""Faces as conditions: embeddings given as numbers, or detected in pictures by insightface."""

from refiners_core.models.face.crop import aligned_crop
from refiners_core.models.face.detector import (
    SIDES,
    DetectionModel,
    Detector,
    Face,
    default_detector,
    largest_face,
)
from refiners_core.models.face.embedding import (
    face_embeddings,
    face_pictures,
    is_face_picture,
)
from refiners_core.models.face.pack import FACE_WIDTH, FacePack

__all__ = [
    "FACE_WIDTH",
    "SIDES",
    "DetectionModel",
    "Detector",
    "Face",
    "FacePack",
    "aligned_crop",
    "default_detector",
    "face_embeddings",
    "face_pictures",
    "is_face_picture",
    "largest_face",
]
