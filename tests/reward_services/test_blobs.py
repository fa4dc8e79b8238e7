"""The words of a job, and the bytes of a picture."""

import numpy as np

from reward_services.blobs import Words, pixels
from reward_services.scorer import ScoreItem


def test_words_are_the_same_after_their_way_through_json() -> None:
    items = [
        ScoreItem(np.zeros((1, 2, 3), np.uint8), 'a "cat"\n', {"weight": 1e-300, "n": 10**30}),
        ScoreItem(np.zeros((4, 5, 3), np.uint8)),
    ]
    words = Words.decode(Words.of(items).encode())
    for index, item in enumerate(items):
        again = words.item(index, pixels(item))
        assert again.image.shape == item.image.shape
        assert (again.prompt, again.metadata) == (item.prompt, item.metadata)


def test_pixels_are_copied_only_where_they_do_not_lie_in_order() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    straight = pixels(ScoreItem(image))
    assert np.shares_memory(np.frombuffer(straight, np.uint8), image)
    assert bytes(pixels(ScoreItem(image[:, ::-1]))) == image[:, ::-1].tobytes()
    assert len(pixels(ScoreItem(image[:0]))) == 0
