"""The card tells the recorded numbers, and the committed one is the one that the code writes."""

from dataclasses import replace
from pathlib import Path

import pytest

from emoji_world import model_card
from emoji_world.captions import FAMILY_SHARES
from emoji_world.model_card import ARTWORK_SOURCES, FAMILY_TITLES, render_card
from emoji_world.model_records import ArtworkPackage, ModelRecords
from emoji_world.quality import groups
from emoji_world.vocabulary import STYLES

RECORDS = ModelRecords(
    plan={"samples": 1000, "batch_size": 48, "processes": 2, "learning_rate": 0.001, "seed": 3},
    log=({"step": 1234, "samples": 118_464, "loss": 0.0512, "validation_loss": 0.0623},),
    seconds=9000.0,
    dataset={"pictures": 65_000},
    decoder={"psnr_db": 27.31},
    quality={
        "per_prompt": 8,
        "others": 184,
        "steps": 30,
        "guidance": 5.0,
        "seed": 0,
        "groups": {
            name: {
                "samples": 100,
                "noun": 0.87,
                "whole": 0.41,
                "by_noun": {"cat": 1.0, "emu": 0.25},
            }
            for name in groups()
        },
    },
    accuracy={family: 0.978 for family in FAMILY_SHARES},
    parameters={"unet": 7_500_000, "text_encoder": 500_000, "vae": 760_000, "classifier": 800_000},
    megabytes={"unet": 15.0, "text_encoder": 1.0, "vae": 3.0, "classifier": 1.6},
    artwork=tuple(ArtworkPackage(style, "1.2.9", "MIT") for style in STYLES),
)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> ModelRecords:
    """Numbers to find again in the card; reading them is tested with the records."""
    monkeypatch.setattr(model_card, "read_records", lambda *_: RECORDS)
    return RECORDS


@pytest.mark.usefixtures("records")
def test_the_recorded_numbers_are_in_the_card() -> None:
    card = render_card(Path("world/models"), Path("lock"), Path("world"))
    for number in (
        "8.8 M parameters",
        "65,000 pictures",
        "118,464 samples in 1,234 steps",
        "2.5 hours",
        "27.3 dB",
        "0.0512",
        "0.0623",
        "| 100 | **87%** (79% to 92%) | 41% |",
        "97.8%",
        "1.2.9",
        "emu (25%)",
    ):
        assert number in card, number
    assert "cat (100%)" not in card


@pytest.mark.usefixtures("records")
def test_the_sheets_of_every_group_are_shown_relative_to_the_card() -> None:
    card = render_card(Path("world/models"), Path("lock"), Path("world"))
    assert card.count("![") == len(groups())
    assert "(models/training/samples/activity_rare.jpg)" in card


@pytest.mark.usefixtures("records")
def test_no_placeholder_is_left() -> None:
    card = render_card(Path("world/models"), Path("lock"), Path("world"))
    assert "{" not in card
    assert "None" not in card


def test_a_group_that_was_not_measured_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {name: row for name, row in RECORDS.quality["groups"].items() if name != "count"}
    lacking = replace(RECORDS, quality={**RECORDS.quality, "groups": measured})
    monkeypatch.setattr(model_card, "read_records", lambda *_: lacking)
    with pytest.raises(ValueError, match=r"lacks \['count'\]"):
        render_card(Path("models"), Path("lock"), Path())


def test_every_group_family_and_icon_set_has_its_words() -> None:
    assert set(groups()) | set(FAMILY_SHARES) == set(FAMILY_TITLES)
    assert set(ARTWORK_SOURCES) == set(STYLES)
