"""Pictures of the emoji world: icons composed on varied backgrounds, 64×64 RGB."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from emoji_world.captions import Caption
from emoji_world.icons import IconSet
from emoji_world.vocabulary import LINE_ART, STYLES, digit_icon, icon_names

SIZE: Final = 64
"""Pixels per side of a picture."""

STYLE_SHARES: Final = (0.30, 0.08, 0.24, 0.24, 0.14)
"""How often each style is drawn, in the order of `vocabulary.STYLES`."""

SIGN_SHARE: Final = 0.15
"""Share of the counting pictures that show a keycap digit beside the animals."""

RIGHT_SIGN_SHARE: Final = 0.6
"""Share of those digits that say the right number."""

_MOTORCYCLE_FACES_RIGHT: Final = frozenset({"noto-v1"})
"""Styles whose motorcycle is turned round, so that all styles agree."""

# Centre of each of the animals of a count, and their size, so that they hardly touch.
_CELLS: Final = {
    2: ((18, 32), (46, 32)),
    3: ((32, 18), (17, 45), (47, 45)),
    4: ((17, 17), (47, 17), (17, 47), (47, 47)),
    5: ((14, 14), (50, 14), (32, 32), (14, 50), (50, 50)),
    6: ((13, 20), (32, 20), (51, 20), (13, 45), (32, 45), (51, 45)),
}
_CELL_SIZES: Final = {2: 28, 3: 27, 4: 27, 5: 20, 6: 19}


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        pixels: uint8 [SIZE, SIZE, 3].
        style: index into `vocabulary.STYLES`.
        sign: the digit on the number sign beside the animals, or 0 when there is none.
    """

    pixels: NDArray[np.uint8]
    style: int
    sign: int = 0


def misleading_digit(count: int, rng: np.random.Generator) -> int:
    """A digit from 1 to 9 that is not ``count``."""
    return int(rng.choice([digit for digit in range(1, 10) if digit != count]))


class Painter:
    """Draws captions with one set of icons and one random generator."""

    def __init__(self, icons: IconSet, rng: np.random.Generator) -> None:
        self._icons = icons
        self._rng = rng

    def draw(self, caption: Caption, style: int | None = None, sign: int | None = None) -> Picture:
        """A picture of ``caption``, in a random style that has the icons unless one is given.

        ``sign`` is the digit to show beside counted animals, 0 for none; chance decides unless it
        is given.

        Raises:
            ValueError: the style lacks an icon, or a digit is asked for where nothing is counted.
        """
        if sign and caption.count == 1:
            raise ValueError(f"there is no place for a digit in {caption.text!r}")
        choices = self._styles(caption)
        if style is None:
            style = self._random_style(choices)
        elif style not in choices:
            raise ValueError(f"the style {STYLES[style]} has no icon for {caption.text!r}")
        canvas = self._background()
        sign = self._scene(canvas, caption, STYLES[style], sign)
        pixels: NDArray[np.uint8] = np.asarray(canvas)
        if not sign and self._rng.random() < 0.5:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        return Picture(pixels, style, sign)

    def style(self, caption: Caption, line_art: bool) -> int:
        """A random style for ``caption`` that is a line drawing, or is not.

        Where the icons exist only the other way, it is one of the other kind.
        """
        choices = self._styles(caption)
        fitting = [index for index in choices if (index == LINE_ART) == line_art]
        return self._random_style(fitting or choices)

    def _random_style(self, choices: list[int]) -> int:
        shares = np.array([STYLE_SHARES[index] for index in choices])
        return int(self._rng.choice(choices, p=shares / shares.sum()))

    def _styles(self, caption: Caption) -> list[int]:
        """The styles that have every icon of ``caption``."""
        activity = caption.activity.icons if caption.activity else ()
        names = [icon_names(caption.noun), *((name,) for name in activity)]
        return [
            index
            for index, name in enumerate(STYLES)
            if all(self._icons.find(name, alternatives) for alternatives in names)
        ]

    def _scene(self, canvas: Image.Image, caption: Caption, style: str, sign: int | None) -> int:
        """Draw the caption onto ``canvas``; the digit shown, or 0."""
        animal = icon_names(caption.noun)
        if caption.count > 1:
            sign = self._random_sign(caption.count) if sign is None else sign
            self._crowd(canvas, style, animal, caption.count, sign)
            return sign
        if caption.activity is None:
            size = int(self._rng.integers(48, 59))
            self._put(canvas, style, animal, size, (32, 32), jitter=3, tilt=6)
            return 0
        match caption.activity.phrase:
            case "riding a motorcycle":
                self._put(canvas, style, ("motorcycle",), 41, (32, 44), jitter=2)
                self._put(canvas, style, animal, 33, (34, 18), jitter=2, tilt=5)
            case "playing chess":
                self._chessboard(canvas)
                self._put(canvas, style, animal, 39, (22, 28), jitter=2, tilt=5)
                self._put(canvas, style, ("chess-pawn",), 26, (51, 36), jitter=1)
            case "washing dishes":
                self._put(canvas, style, animal, 37, (21, 24), jitter=2, tilt=5)
                self._put(canvas, style, ("fork-and-knife-with-plate",), 31, (45, 46), jitter=2)
                self._put(canvas, style, ("bubbles",), 21, (51, 15), jitter=2)
            case "taking an exam":
                self._put(canvas, style, animal, 40, (23, 23), jitter=2, tilt=5)
                self._put(canvas, style, ("memo",), 28, (47, 46), jitter=2)
            case "flying a kite":
                self._put(canvas, style, animal, 37, (22, 43), jitter=2, tilt=5)
                self._put(canvas, style, ("kite",), 29, (46, 17), jitter=2)
            case phrase:
                raise ValueError(f"no way to draw {phrase!r}")
        return 0

    def _random_sign(self, count: int) -> int:
        """The digit beside ``count`` animals: mostly none (0), sometimes a wrong one."""
        if self._rng.random() >= SIGN_SHARE:
            return 0
        if self._rng.random() < RIGHT_SIGN_SHARE:
            return count
        return misleading_digit(count, self._rng)

    def _crowd(
        self, canvas: Image.Image, style: str, animal: tuple[str, ...], count: int, sign: int
    ) -> None:
        """``count`` animals on a loose grid, beside them the digit ``sign`` unless it is 0."""
        size = _CELL_SIZES[count] - (3 if sign else 0)
        for x, y in _CELLS[count]:
            if sign:  # squeezed down a little, below the digit
                y = 20 + (y - 13) * 42 // 38
            self._put(canvas, style, animal, size, (x, y), jitter=1, tilt=4)
        if sign:
            self._put(canvas, style, (digit_icon(sign),), 17, (9, 9), jitter=0)

    def _put(
        self,
        canvas: Image.Image,
        style: str,
        names: tuple[str, ...],
        size: int,
        centre: tuple[int, int],
        *,
        jitter: int,
        tilt: float = 0.0,
    ) -> None:
        """Paste an icon of ``size`` pixels around ``centre``, moved and tilted a little."""
        icon = self._icons.find(style, names)
        assert icon is not None  # `draw` chose a style that has it
        if style in _MOTORCYCLE_FACES_RIGHT and names[0] == "motorcycle":
            icon = icon.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        icon = icon.convert("RGBa")  # premultiplied: no dark fringe where the edge is shrunk
        if tilt:
            icon = icon.rotate(self._rng.uniform(-tilt, tilt), Image.Resampling.BILINEAR)
        icon = icon.resize((size, size), Image.Resampling.BOX, reducing_gap=None).convert("RGBA")
        dx, dy = self._rng.integers(-jitter, jitter + 1, 2)
        corner = (int(centre[0] + dx - size // 2), int(centre[1] + dy - size // 2))
        canvas.paste(icon, corner, icon)

    def _background(self) -> Image.Image:
        """White (45 %), a pastel (35 %), a ground line (10 %), or dots, stripes, checks (10 %)."""
        kind = self._rng.random()
        if kind < 0.45:
            return Image.new("RGB", (SIZE, SIZE), "white")
        canvas = Image.new("RGB", (SIZE, SIZE), self._pastel())
        if kind < 0.80:
            return canvas
        pen = ImageDraw.Draw(canvas)
        ink = self._pastel()
        if kind < 0.90:
            pen.rectangle((0, int(self._rng.integers(46, 56)), SIZE, SIZE), fill=ink)
        else:
            self._pattern(pen, ink, kind)
        return canvas

    @staticmethod
    def _pattern(pen: ImageDraw.ImageDraw, ink: tuple[int, int, int], kind: float) -> None:
        """Dots, stripes or checks, as ``kind`` in [0.9, 1) says."""
        if kind < 0.935:
            for x in range(4, SIZE, 12):
                for y in range(4, SIZE, 12):
                    pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=ink)
        elif kind < 0.97:
            for y in range(0, SIZE, 16):
                pen.rectangle((0, y, SIZE, y + 7), fill=ink)
        else:
            for x in range(0, SIZE, 16):
                for y in range((x // 16 % 2) * 16, SIZE, 32):
                    pen.rectangle((x, y, x + 15, y + 15), fill=ink)

    def _pastel(self) -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in self._rng.integers(190, 256, 3))
        return red, green, blue

    def _chessboard(self, canvas: Image.Image) -> None:
        """A strip of chessboard along the lower edge."""
        pen = ImageDraw.Draw(canvas)
        for column in range(8):
            for row in range(2):
                ink = "#3c3c3c" if (column + row) % 2 else "#f0e6d2"
                pen.rectangle((column * 8, 48 + row * 8, column * 8 + 7, 55 + row * 8), fill=ink)
