"""Charts are well-formed SVG that shows the numbers it was given."""

from xml.etree import ElementTree

import pytest

from trainer.charts import Interval, Mark, curve_chart, number, small_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (-2.5, -1.5, [-2.4, -2.2, -2.0, -1.8, -1.6]),
        (0.0, 960.0, [0, 200, 400, 600, 800]),
        (1.0, 1.0, [1.0]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(
    low: float, high: float, expected: list[float]
) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_the_curve_shows_every_epoch_and_evaluation() -> None:
    evaluations = [
        Interval(0, -2.4, -2.5, -2.3, "evaluation after epoch 0"),
        Interval(128, -1.6, -1.7, -1.5, "evaluation after epoch 2"),
    ]
    svg = curve_chart(
        [64, 128], [-2.3, -1.9], [0.2, 0.3], evaluations, x_label="queries", y_label="a < b"
    )
    root = ElementTree.fromstring(svg)
    titles = [title.text for title in root.iter("title")]
    assert titles == [
        "epoch 1: −2.3 after 64 queries",
        "epoch 2: −1.9 after 128 queries",
        "evaluation after epoch 0: −2.4 (95 % interval −2.5 to −2.3)",
        "evaluation after epoch 2: −1.6 (95 % interval −1.7 to −1.5)",
    ]
    dots = [dot for dot in root.iter("circle") if dot.get("class") == "dot"]
    left, right = (float(dot.get("cx", "nan")) for dot in dots)
    low, high = (float(dot.get("cy", "nan")) for dot in dots)
    assert left < right
    assert low > high  # SVG counts downwards, and the reward rose


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_curve_may_be_short(epochs: int) -> None:
    svg = curve_chart([8.0] * epochs, [1.0] * epochs, [0.0] * epochs, [], x_label="x", y_label="y")
    assert len(list(ElementTree.fromstring(svg).iter("circle"))) == epochs


def test_a_constant_diagnostic_can_be_drawn() -> None:
    root = ElementTree.fromstring(small_chart([1, 2, 3], [0.0, 0.0, 0.0], "clip & more"))
    assert next(title.text for title in root.iter("title")) == "clip & more, epoch 1: 0"


def test_numbers_have_a_true_minus_sign() -> None:
    assert number(-1234.56) == "−1235"


def test_marks_are_written_to_the_side_with_room() -> None:
    marks = [Mark(1.0, "begun & done"), Mark(9.0, "ended")]
    svg = curve_chart([0.0, 10.0], [1.0, 2.0], [0.1, 0.1], [], marks, x_label="x", y_label="y")
    assert svg.count('class="mark"') == 2
    assert ">begun &amp; done<" in svg
    sides = [text.split('text-anchor="')[-1].split('"')[0] for text in svg.split("begun")[:1]]
    assert sides == ["start"]
    assert svg.split(">ended<")[0].split('text-anchor="')[-1].startswith("end")
