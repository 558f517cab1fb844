"""Scores of concepts alone, fused, and with one another: `evaluate`."""

from spectral_fusion.evaluate.config import EvaluateConfig
from spectral_fusion.evaluate.finding import Detector, Finder, PretrainedDetector, load_detector
from spectral_fusion.evaluate.job import evaluate
from spectral_fusion.evaluate.load import load_scorers
from spectral_fusion.evaluate.lora import train_loras
from spectral_fusion.evaluate.methods import METHODS, Loras, Spectral, build_methods
from spectral_fusion.evaluate.result import SETTINGS, Evaluation, MethodResult, Scores
from spectral_fusion.evaluate.scorers import PretrainedScorers, Scorers

__all__ = [
    "METHODS",
    "SETTINGS",
    "Detector",
    "EvaluateConfig",
    "Evaluation",
    "Finder",
    "Loras",
    "MethodResult",
    "PretrainedDetector",
    "PretrainedScorers",
    "Scorers",
    "Scores",
    "Spectral",
    "build_methods",
    "evaluate",
    "load_detector",
    "load_scorers",
    "train_loras",
]
