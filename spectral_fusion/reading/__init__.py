"""The one way in for each kind of file: text, JSON, safetensors and pictures, bounded and checked before any use.

Whatever is wrong with a file is an `InputError` that names it. `tests/test_doors.py` holds that nothing else in the
package opens such files.
"""

from spectral_fusion.reading.data import parse_json, parse_toml, read_json
from spectral_fusion.reading.pictures import PictureHeader, load_picture, read_header
from spectral_fusion.reading.tensors import TensorFile, open_tensors
from spectral_fusion.reading.text import decode_text, read_text

__all__ = [
    "PictureHeader",
    "TensorFile",
    "decode_text",
    "load_picture",
    "open_tensors",
    "parse_json",
    "parse_toml",
    "read_header",
    "read_json",
    "read_text",
]
