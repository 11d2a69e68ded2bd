"""Encoded pictures, as files and tables hold them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbench.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: Path) -> bytes:
    """The encoded picture in a file.

    Raises:
        PictureError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise PictureError(
            f"{path}: {error.strerror}. Expected a picture file (PNG, JPEG, ...)."
        ) from None


def decode_picture(data: bytes) -> Image:
    """An encoded picture as RGB, turned upright by its EXIF orientation.

    One or three pixels high, it is doubled: processors would take its rows for channels.

    Raises:
        PictureError: the bytes are no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # names an object's address
        reason = "no known format" if unknown else error
        raise PictureError(
            f"a picture of {len(data)} bytes cannot be read ({reason}). Expected a complete image "
            "file (PNG, JPEG, ...); export it again."
        ) from None
    if upright.height in (1, 3):
        return ImageOps.scale(upright, 2, Image.Resampling.NEAREST)
    return upright
