"""Scores of a picture without a reference: the interface, who computes what, and where weights come from."""

from curation.scorers.catalog import check_metrics, known_metrics, lower_better
from curation.scorers.fused import FusedScorer
from curation.scorers.panel import ENGINES, Panel
from curation.scorers.protocol import Scored, Scorer
from curation.scorers.pyiqa_build import WeightMissing, WeightRefused
from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile, resolve

__all__ = [
    "ENGINES",
    "FusedScorer",
    "Panel",
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
