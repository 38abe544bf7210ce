"""Signals: a trained policy turns tables of bars into decisions, and is tested on what they would have earned."""

from __future__ import annotations

from everlearn.signals.predictor import SignalPredictor

__all__ = ["SignalPredictor"]
