"""Scores of concepts alone, fused, and with one another: `evaluate`."""

from spectral_fusion.evaluate.config import EvaluateConfig
from spectral_fusion.evaluate.job import evaluate
from spectral_fusion.evaluate.methods import Loras, Spectral
from spectral_fusion.evaluate.result import SETTINGS, Evaluation, MethodResult, Scores
from spectral_fusion.evaluate.scorers import PretrainedScorers, Scorers, load_scorers

__all__ = [
    "SETTINGS",
    "EvaluateConfig",
    "Evaluation",
    "Loras",
    "MethodResult",
    "PretrainedScorers",
    "Scorers",
    "Scores",
    "Spectral",
    "evaluate",
    "load_scorers",
]
