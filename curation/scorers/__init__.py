"""Scores of a picture without a reference: the interface, pyiqa behind it, and where its weights come from."""

from curation.scorers.fused import FusedScorer
from curation.scorers.protocol import Scored, Scorer
from curation.scorers.pyiqa_build import WeightMissing, WeightRefused, check_metrics, known_metrics, lower_better
from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile, resolve

__all__ = [
    "FusedScorer",
    "PyiqaScorer",
    "Scored",
    "Scorer",
    "WeightFile",
    "WeightMissing",
    "WeightRefused",
    "check_metrics",
    "known_metrics",
    "lower_better",
    "resolve",
]
