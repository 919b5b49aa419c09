"""Pictures as a model reads them: not larger than it can see, and of a kind that it knows. Runs in the kernel."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import re
import struct
import warnings

MOST_PIXELS = 1568
"""Of a side: models make larger ones smaller, and take longer."""
MOST_BYTES = 1_000_000
_EMBEDDED = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s\\]{100,})")


def smaller(mime: str, encoded: str) -> dict[str, str]:
    """Return a picture that is not too large, by its type; nothing if this one is not, or nobody here can scale it."""
    if mime == "image/png" and len(encoded) * 3 // 4 <= MOST_BYTES:
        head = base64.b64decode(encoded[:64])
        if len(head) >= 24 and max(struct.unpack(">II", head[16:24])) <= MOST_PIXELS:
            return {}
    return _scaled(base64.b64decode(encoded), even_if_small=False)


def drawn(mime: str, source: str) -> dict[str, str]:
    """Return a picture of another kind as one that models know; nothing if nothing here can draw it."""
    if mime == "image/svg+xml":
        if not _there("cairosvg"):
            return {}
        import cairosvg

        return _scaled(cairosvg.svg2png(bytestring=source.encode()), even_if_small=True)
    return _scaled(base64.b64decode(source), even_if_small=True)


def within(html: str) -> dict[str, str]:
    """Return the first picture that is a part of HTML, or of its scripts: an animation has its frames there."""
    found = _EMBEDDED.search(html)
    return _scaled(base64.b64decode(re.sub(r"[\s\\]", "", found[2])), even_if_small=True) if found else {}


@functools.cache
def _there(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _scaled(data: bytes, *, even_if_small: bool) -> dict[str, str]:
    if not _there("PIL"):
        return {}
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            kind = "JPEG" if image.format == "JPEG" else "PNG"
            if not even_if_small and max(image.size) <= MOST_PIXELS and len(data) <= MOST_BYTES:
                return {}
            if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
                clear = "transparency" in image.info
                image = image.convert("RGBA" if clear else "RGB")
            image.thumbnail((MOST_PIXELS, MOST_PIXELS))
            image.load()
    out = io.BytesIO()
    image.save(out, kind)
    if len(out.getvalue()) > MOST_BYTES:
        out = io.BytesIO()
        if "A" in image.getbands():
            ground = Image.new("RGB", image.size, "white")
            ground.paste(image, mask=image.getchannel("A"))
            image = ground
        image.convert("RGB").save(out, kind := "JPEG", quality=75)
    return {f"image/{kind.lower()}": base64.b64encode(out.getvalue()).decode()}
