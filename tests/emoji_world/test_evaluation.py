"""The whole measurement, on an untrained pipeline and an untrained judge."""

import json
from pathlib import Path

import pytest
from PIL import Image

from emoji_world.evaluation import EvaluationPlan, evaluate_generator, load_pipeline, sheet_name
from emoji_world.quality import groups
from emoji_world.vocabulary import ANIMALS


def test_every_group_is_sampled_judged_and_drawn(untrained: Path, tmp_path: Path) -> None:
    plan = EvaluationPlan(per_prompt=1, others=2, steps=2, guidance=2.0, seed=4)
    rows = evaluate_generator(untrained / "diffusion", untrained / "classifier", tmp_path, plan)
    assert rows.keys() == groups().keys()
    assert rows["animal"].samples == len(ANIMALS)
    assert set(rows["animal"].by_noun) == set(ANIMALS)
    assert rows["count"].samples == 2
    record = json.loads((tmp_path / "quality.json").read_text())
    assert (record["steps"], record["guidance"], record["seed"]) == (2, 2.0, 4)
    assert record["groups"]["animal"]["noun"] == rows["animal"].noun
    for name in rows:
        with Image.open(tmp_path / "samples" / sheet_name(name)) as drawn:
            assert drawn.width == 84 * (10 if name == "animal" else 2)
    assert {path.name for path in tmp_path.iterdir()} == {"quality.json", "samples"}


def test_a_folder_without_pipeline_is_refused_and_no_hub_asked(
    untrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world export"):
        load_pipeline(tmp_path / "diffusion")
    with pytest.raises(ValueError, match="holds no pipeline"):
        evaluate_generator(tmp_path, untrained / "classifier", tmp_path / "out", EvaluationPlan())
    with pytest.raises(ValueError, match="holds no picture classifier"):
        evaluate_generator(untrained / "diffusion", tmp_path, tmp_path / "out", EvaluationPlan())
    assert not (tmp_path / "out").exists()
