"""The sections of a run's configuration. Every field's docstring is its help text.

All sections are frozen, and an unknown key in any of them is an error.
"""

from trainer.sections.model import LoraSection, ModelSection, PromptsSection, RunSection
from trainer.sections.records import (
    CheckpointsSection,
    EvaluationSection,
    GuardSection,
    TrackingSection,
)
from trainer.sections.section import Section
from trainer.sections.services import RewardSection, ScoringSection, ServiceSection
from trainer.sections.training import (
    AdvantagesSection,
    Algorithm,
    EMASection,
    KLSection,
    RWRSection,
    SamplingSection,
    TrainingSection,
)

__all__ = [
    "AdvantagesSection",
    "Algorithm",
    "CheckpointsSection",
    "EMASection",
    "EvaluationSection",
    "GuardSection",
    "KLSection",
    "LoraSection",
    "ModelSection",
    "PromptsSection",
    "RWRSection",
    "RewardSection",
    "RunSection",
    "SamplingSection",
    "ScoringSection",
    "Section",
    "ServiceSection",
    "TrackingSection",
    "TrainingSection",
]
