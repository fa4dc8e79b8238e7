"""Sheets of samples to look at, each with its prompt, red where the classifier objects."""

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emoji_world.captions import Caption

COLUMNS: Final = 10
PER_CAPTION: Final = 2
"""Samples of one caption that a sheet shows: the first ones, so that nobody picks the best."""

AT_MOST: Final = 90
"""Samples on one sheet."""

_CELL_WIDTH: Final = 84
_LINE_HEIGHT: Final = 12
_LINE_LETTERS: Final = 15
_MARGIN: Final = 4


def shown(captions: Sequence[Caption]) -> list[int]:
    """Indices of the samples that go on the sheet of samples for ``captions``."""
    seen: dict[str, int] = {}
    chosen = []
    for index, caption in enumerate(captions):
        seen[caption.text] = seen.get(caption.text, 0) + 1
        if seen[caption.text] <= PER_CAPTION:
            chosen.append(index)
    return chosen[:AT_MOST]


def sheet(pictures: NDArray[np.uint8], labels: Sequence[str], wrong: Sequence[bool]) -> Image.Image:
    """The pictures uint8 [N, H, W, 3] in rows, each above its label, which is red if ``wrong``."""
    count, height, width, _ = pictures.shape
    wrapped = [textwrap.wrap(label, _LINE_LETTERS) for label in labels]
    cell_height = height + _LINE_HEIGHT * max(len(lines) for lines in wrapped) + 2 * _MARGIN
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    canvas = Image.new("RGB", (columns * _CELL_WIDTH, rows * cell_height), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(10)
    for index, (lines, is_wrong) in enumerate(zip(wrapped, wrong, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * _CELL_WIDTH, row * cell_height + _MARGIN
        canvas.paste(Image.fromarray(pictures[index]), (left + (_CELL_WIDTH - width) // 2, top))
        pen.multiline_text(
            (left + _CELL_WIDTH // 2, top + height + 1),
            "\n".join(lines),
            fill="#c00000" if is_wrong else "#202020",
            font=font,
            anchor="ma",
            align="center",
            spacing=1,
        )
    return canvas
