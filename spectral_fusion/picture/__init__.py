"""Pictures that carry how they were made, in the text format that AUTOMATIC1111's web UI introduced and others read.

    a photo of a <rex> dog
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 965400086, Size: 512x512, Model: name, Version: ...

PNG keeps it under the text key `parameters`, JPEG and WebP in EXIF's UserComment. What other tools write is read
as well.
"""

from spectral_fusion.picture.files import read_parameters, save_numbered, save_picture
from spectral_fusion.picture.parameters import KEY, Parameters, format_weights
from spectral_fusion.picture.sheet import contact_sheet

__all__ = [
    "KEY",
    "Parameters",
    "contact_sheet",
    "format_weights",
    "read_parameters",
    "save_numbered",
    "save_picture",
]
