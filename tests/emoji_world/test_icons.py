"""Artwork: out of the Iconify files, through the rasteriser, into the cache and back."""

import json
from pathlib import Path

import numpy as np
import pytest

from emoji_world.icons import (
    RASTER_SIZE,
    ArtworkMissing,
    IconSet,
    build_cache,
    load_icons,
    rasterise,
    svg_of,
)
from emoji_world.vocabulary import ANIMALS, STYLES, digit_icon, icon_names, required_icons

COLLECTION = {
    "width": 32,
    "height": 32,
    "icons": {
        "cat": {"body": '<rect width="16" height="32" fill="#ff0000"/>'},
        "ant": {
            "body": '<rect width="8" height="8" fill="currentColor"/>',
            "width": 8,
            "height": 8,
        },
    },
    "aliases": {
        "kitty": {"parent": "cat"},
        "kitten": {"parent": "kitty"},
        "ghost": {"parent": "nobody"},
        "egg": {"parent": "hen"},
        "hen": {"parent": "egg"},
    },
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A node_modules folder whose sets hold a cat and an ant."""
    for style in STYLES:
        folder = tmp_path / "node_modules" / "@iconify-json" / style
        folder.mkdir(parents=True)
        (folder / "icons.json").write_text(json.dumps(COLLECTION))
    return tmp_path / "node_modules"


def test_the_size_of_an_icon_goes_before_that_of_its_collection() -> None:
    ant, cat = svg_of(COLLECTION, "ant"), svg_of(COLLECTION, "cat")
    assert ant is not None
    assert cat is not None
    assert 'viewBox="0 0 8 8"' in ant
    assert 'viewBox="0 0 32 32"' in cat


def test_aliases_are_followed() -> None:
    assert svg_of(COLLECTION, "kitten") == svg_of(COLLECTION, "cat")


@pytest.mark.parametrize("name", ["ghost", "egg", "dragon"])
def test_an_alias_that_leads_nowhere_is_no_icon(name: str) -> None:
    assert svg_of(COLLECTION, name) is None


def test_a_drawing_is_rasterised_with_its_transparency() -> None:
    svg = svg_of(COLLECTION, "cat")
    assert svg is not None
    pixels = rasterise(svg)
    assert pixels.shape == (RASTER_SIZE, RASTER_SIZE, 4)
    assert pixels.dtype == np.uint8
    assert pixels[RASTER_SIZE // 2, 10].tolist() == [255, 0, 0, 255]
    assert pixels[RASTER_SIZE // 2, -10, 3] == 0


def test_the_current_colour_is_black() -> None:
    svg = svg_of(COLLECTION, "ant")
    assert svg is not None
    assert rasterise(svg)[5, 5].tolist() == [0, 0, 0, 255]


def test_the_cache_holds_what_each_set_has(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "made" / "icons.npz"
    assert build_cache(packages, cache) == 2 * len(STYLES)
    icons = load_icons(cache)
    assert set(icons.images) == {(style, name) for style in STYLES for name in ("cat", "ant")}
    cat = icons.find("noto", ("tiger", "cat"))
    assert cat is not None
    assert cat.mode == "RGBA"
    assert cat.getpixel((10, 10)) == (255, 0, 0, 255)
    assert icons.find("noto", ("tiger",)) is None
    assert [path.name for path in cache.parent.iterdir()] == ["icons.npz"]


def test_a_missing_package_names_the_command_that_installs_it(
    packages: Path, tmp_path: Path
) -> None:
    (packages / "@iconify-json" / "noto-v1" / "icons.json").unlink()
    with pytest.raises(ArtworkMissing, match=r"noto-v1.*npm ci"):
        build_cache(packages, tmp_path / "icons.npz")
    assert not (tmp_path / "icons.npz").exists()


def test_a_missing_cache_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtworkMissing, match="python -m emoji_world icons"):
        load_icons(tmp_path / "icons.npz")


def test_four_sets_draw_every_animal_and_the_fifth_most(artwork: IconSet) -> None:
    drawn = {
        style: {animal for animal in ANIMALS if artwork.find(style, icon_names(animal))}
        for style in STYLES
    }
    oldest = drawn.pop("noto-v1")
    assert all(animals == set(ANIMALS) for animals in drawn.values())
    assert set(ANIMALS) - oldest == {
        "zebra", "raccoon", "beetle", "goose", "fly", "llama", "hedgehog", "kangaroo",
    }  # fmt: skip


def test_every_set_has_every_digit(artwork: IconSet) -> None:
    for style in STYLES:
        assert all(artwork.find(style, (digit_icon(number),)) for number in range(1, 10))


def test_no_icon_is_empty_and_none_is_unused(artwork: IconSet) -> None:
    assert {name for _, name in artwork.images} <= set(required_icons())
    for key, icon in artwork.images.items():
        assert np.asarray(icon)[..., 3].mean() > 8, f"{key} is almost invisible"
