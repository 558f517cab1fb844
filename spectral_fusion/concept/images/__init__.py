"""A folder of photographs of one subject: pictures, captions, masks, and what was wrong with any of them."""

from spectral_fusion.concept.images.folder import ImageFolder, Photo, find_pictures
from spectral_fusion.concept.images.picture import read_picture

__all__ = ["ImageFolder", "Photo", "find_pictures", "read_picture"]
