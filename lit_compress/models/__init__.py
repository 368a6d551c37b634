"""Models: what they look like, where they come from, and how they are kept."""

from lit_compress.models.architecture import Architecture, describe
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.factory import from_pretrained
from lit_compress.models.student import FromConfig, LayerSubset, Pretrained, StudentFactory
from lit_compress.models.teacher import CachedTeacher, LiveTeacher, Teacher

__all__ = [
    "Architecture",
    "CachedTeacher",
    "FromConfig",
    "LayerSubset",
    "LiveTeacher",
    "Pretrained",
    "StudentFactory",
    "Teacher",
    "describe",
    "from_pretrained",
    "load",
    "save_folder",
]
