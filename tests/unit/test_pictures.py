"""A picture file becomes an upright RGB picture, or an error that says it is none."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from vlmbench.errors import PictureError
from vlmbench.pictures import decode_picture

FADE = Image.radial_gradient("L")


def picture(width: int, height: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    FADE.resize((width, height)).convert(mode).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("PNG", mode) for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "I;16")],
        *[("JPEG", mode) for mode in ("RGB", "L", "CMYK")],
        *[("GIF", "P"), ("WEBP", "RGBA"), ("TIFF", "CMYK")],
    ],
)
def test_any_picture_becomes_rgb(mode: str, kind: str) -> None:
    data = picture(20, 10, mode, kind)
    assert (decode_picture(data).mode, decode_picture(data).size) == ("RGB", (20, 10))


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera held sideways
    lying = Image.new("RGB", (40, 20), "white")
    lying.paste("black", (0, 0, 20, 20))
    out = io.BytesIO()
    lying.save(out, "PNG", exif=exif)
    upright = decode_picture(out.getvalue())
    assert upright.size == (20, 40)
    assert (upright.getpixel((10, 5)), upright.getpixel((10, 35))) == ((0,) * 3, (255,) * 3)


@pytest.mark.parametrize(
    "data",
    [picture(90, 90)[:-60], picture(90, 90)[:20], b"", b"no picture"],
    ids=["end missing", "header missing", "empty", "text"],
)
def test_what_is_no_whole_picture(data: bytes) -> None:
    with pytest.raises(PictureError, match=rf"{len(data)} bytes cannot be read .*export it again"):
        decode_picture(data)
