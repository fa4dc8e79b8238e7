"""Pictures as uint8 arrays [H,W,3]: the one place that rounds, clamps, encodes and decodes them.

Everything here is lossless except `to_uint8`, which rounds once and says how.
"""

import io
import threading
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported, InvalidRequest
from shared.image_headers import ImageHeader, png_damage, read_image_header

FORMATS = ("PNG", "JPEG", "WEBP")
OPAQUE_MODES = frozenset({"1", "L", "P", "RGB"})
ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "RGBX"})
WHITE = (255, 255, 255, 255)

_ORIENTATION = 0x0112  # EXIF tag; its values 2 to 8 are undone by:
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPENING = threading.Lock()

Pixels = npt.NDArray[np.uint8]


def to_uint8(images: npt.NDArray[np.floating[Any]]) -> Pixels:
    """Round pictures to bytes: `(x * 255).round().clip(0, 255)`, halves to the even neighbour.

    Args:
        images: floats [...,H,W,3] in [0,1]; what lies outside is clipped.

    Returns:
        uint8 of the same shape.

    Raises:
        InvalidRequest: no floats, channels not last, or a value that is NaN or infinite. As uint8
            such a value would be black, and a black picture is the best there is for some rewards.
    """
    if not np.issubdtype(images.dtype, np.floating):
        raise InvalidRequest(f"to_uint8 takes floats in [0,1], not {images.dtype}")
    if images.ndim < 3 or images.shape[-1] != 3:
        raise InvalidRequest(f"to_uint8 takes [...,H,W,3], channels last, not {images.shape}")
    if not np.isfinite(images).all():
        bad = int(images.size - np.isfinite(images).sum())
        raise InvalidRequest(f"{bad} of {images.size} pixel values are NaN or infinite")
    # In half precision the product itself would be rounded, to an eighth and then to a whole.
    scaled = images.astype(np.promote_types(images.dtype, np.float32)) * 255
    return scaled.round().clip(0, 255).astype(np.uint8)


def encode_png(image: Pixels, *, compress_level: int = 6) -> bytes:
    """A picture uint8 [H,W,3] as PNG, bit for bit the same when decoded.

    Args:
        image: the pixels.
        compress_level: zlib level, 0 (fast) to 9 (small).

    Raises:
        InvalidRequest: another dtype or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InvalidRequest(f"a picture is uint8 [H,W,3], not {image.dtype} {list(image.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def decode_image(
    data: bytes | bytearray | memoryview,
    *,
    max_pixels: int,
    formats: Collection[str] = FORMATS,
) -> Pixels:
    """Pixels of a PNG, JPEG or WebP file as uint8 RGB [H,W,3], as a person would see it.

    Grey and palette pictures become RGB. Transparent ones are laid on white. Of an animation the
    first frame counts. An EXIF orientation is applied; colour profiles are not. More than eight
    bits per channel and CMYK are refused, since there is no single right way to convert them.

    Args:
        data: the file.
        max_pixels: bound on width times height, checked before anything is decoded.
        formats: what may be decoded, among `FORMATS`.

    Raises:
        ImageUnreadable: no picture of these formats, or a broken or truncated one.
        ImageTooLarge: above `max_pixels`.
        ImageUnsupported: a format or kind of pixel that is not taken.
    """
    header = _checked_header(data, max_pixels, formats)
    damage = png_damage(data) if header.format == "PNG" else None
    if damage is not None:
        raise ImageUnreadable(f"the PNG picture is broken: {damage}")
    try:
        image, orientation = _open(data, header)
        image.load()
        rgb = _rgb(image)
    except (ImageUnsupported, ImageUnreadable, MemoryError):
        raise
    except Exception as error:  # whatever a decoder makes of hostile bytes, the picture is broken
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageUnreadable(f"the {header.format} picture is broken: {reason}") from None
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.array(rgb)


def _checked_header(
    data: bytes | bytearray | memoryview, max_pixels: int, formats: Collection[str]
) -> ImageHeader:
    header = read_image_header(data)
    if header is None:
        raise ImageUnreadable(
            f"these {len(data)} bytes are no whole {', '.join(formats)} picture"
            if len(data)
            else "the picture is empty (0 bytes)"
        )
    if header.format not in formats:
        raise ImageUnsupported(f"{header.format} pictures are not taken: send {', '.join(formats)}")
    pixels = header.width * header.height
    if pixels == 0:
        raise ImageUnreadable(f"the picture has size {header.width}x{header.height}")
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"the picture has {header.width}x{header.height} = {pixels} pixels, at most "
            f"{max_pixels} are allowed: send a smaller one"
        )
    if header.bit_depth > 8:
        raise ImageUnsupported(
            f"the picture has {header.bit_depth} bits per channel: convert it to 8 bits"
        )
    return header


def _open(
    data: bytes | bytearray | memoryview, header: ImageHeader
) -> tuple[Image.Image, int | None]:
    """Parse the file without decoding its pixels. Returns its EXIF orientation as well."""
    # The filters of `warnings` belong to the whole process, so only one thread may touch them.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise ImageUnreadable(
                f"the picture claims {header.width}x{header.height} pixels and holds "
                f"{image.size[0]}x{image.size[1]}"
            )
        try:
            orientation = image.getexif().get(_ORIENTATION) if "exif" in image.info else None
        except Exception:  # broken notes on the camera do not make the pixels unreadable
            orientation = None
    return image, orientation


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode not in OPAQUE_MODES | ALPHA_MODES:
        raise ImageUnsupported(f"the picture has {image.mode} pixels: convert it to 8-bit RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), rgba).convert("RGB")
    return image.convert("RGB")
