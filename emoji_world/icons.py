"""Artwork from the pinned npm packages, rasterised once into a cache."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoji_world.vocabulary import STYLES, required_icons

RASTER_SIZE = 96
"""Pixels per side of a cached icon: larger than any drawn one, so that drawing only shrinks."""


class ArtworkMissing(Exception):
    """The npm packages are not installed, or their icons are not rasterised yet."""


@dataclass(frozen=True)
class IconSet:
    """Rasterised icons of every style.

    Attributes:
        images: (style name, icon name) to an RGBA uint8 picture of `RASTER_SIZE` squared.
    """

    images: Mapping[tuple[str, str], Image.Image]

    def find(self, style: str, names: Sequence[str]) -> Image.Image | None:
        """The first of ``names`` that ``style`` draws, or None."""
        for name in names:
            if (style, name) in self.images:
                return self.images[style, name]
        return None


def svg_of(collection: Mapping[str, Any], name: str) -> str | None:
    """The SVG document of one icon of an Iconify collection, aliases followed; None if absent."""
    seen = set()
    while name in collection.get("aliases", {}) and name not in seen:
        seen.add(name)
        name = collection["aliases"][name]["parent"]
    icon = collection["icons"].get(name)
    if icon is None:
        return None
    width = icon.get("width", collection.get("width", 16))
    height = icon.get("height", collection.get("height", 16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{RASTER_SIZE}" height="{RASTER_SIZE}">'
        f"{icon['body'].replace('currentColor', '#000000')}</svg>"
    )


def rasterise(svg: str) -> NDArray[np.uint8]:
    """Draw an SVG document as RGBA uint8 [RASTER_SIZE, RASTER_SIZE, 4]."""
    from resvg_py import svg_to_bytes  # only here: nothing else needs the emoji-world extra

    png = bytes(svg_to_bytes(svg_string=svg, width=RASTER_SIZE, height=RASTER_SIZE))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def build_cache(packages: Path, cache: Path) -> int:
    """Rasterise every icon the vocabulary needs; the number of icons.

    An icon that a set lacks is left out of that set: `composition.Painter` draws a caption only in
    the styles that have all its icons.

    Args:
        packages: the ``node_modules`` folder that ``npm ci`` filled.
        cache: the npz file to write, replaced in one rename.

    Raises:
        ArtworkMissing: a package is not installed.
    """
    pictures: dict[str, Any] = {}  # Any: the stub of savez mistakes arrays by name for its flag
    for style in STYLES:
        path = packages / "@iconify-json" / style / "icons.json"
        if not path.is_file():
            raise ArtworkMissing(
                f"{path} is missing: run `npm ci` in the folder emoji_world to install the artwork"
            )
        collection = json.loads(path.read_text())
        found = {name: svg_of(collection, name) for name in required_icons()}
        svgs = {name: svg for name, svg in found.items() if svg is not None}
        with ThreadPool() as pool:
            drawn = pool.map(rasterise, svgs.values())
        pictures |= {f"{style}/{name}": picture for name, picture in zip(svgs, drawn, strict=True)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f"{cache.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **pictures)
    os.replace(partial, cache)
    return len(pictures)


def load_icons(cache: Path) -> IconSet:
    """Read the cache that `build_cache` wrote.

    Raises:
        ArtworkMissing: there is no cache.
    """
    if not cache.is_file():
        raise ArtworkMissing(f"{cache} is missing: run `python -m emoji_world icons` first")
    with np.load(cache, allow_pickle=False) as arrays:
        pictures = {key: Image.fromarray(arrays[key]) for key in arrays.files}
    return IconSet({_split(key): picture for key, picture in pictures.items()})


def _split(key: str) -> tuple[str, str]:
    style, _, name = key.partition("/")
    return style, name
