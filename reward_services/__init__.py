"""Rewards served over HTTP: one reward, one service."""
