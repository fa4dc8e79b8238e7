"""Rewards served over HTTP: one reward, one service. These names are all a reward needs."""

from reward_services.options import RewardOptions
from reward_services.scorer import ItemError, Scored, ScoreItem, Scorer

__all__ = ["ItemError", "RewardOptions", "ScoreItem", "Scored", "Scorer"]
