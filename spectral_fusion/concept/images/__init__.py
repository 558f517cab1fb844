"""A folder of photographs of one subject: pictures, captions, masks, and what was wrong with any of them."""

from .folder import ImageFolder, Photo
from .picture import read_picture

__all__ = ["ImageFolder", "Photo", "read_picture"]
