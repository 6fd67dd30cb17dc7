"""Recommendation losses: over the whole catalogue, in blocks of sessions, or over a sample of the items."""

from llm4sbr.nn.losses.blockwise_softmax import BlockwiseSoftmax
from llm4sbr.nn.losses.full_softmax import FullSoftmax, catalogue_cross_entropy
from llm4sbr.nn.losses.recommendation_loss import RecommendationLoss
from llm4sbr.nn.losses.sampled_softmax import SampledSoftmax

__all__ = [
    "BlockwiseSoftmax",
    "FullSoftmax",
    "RecommendationLoss",
    "SampledSoftmax",
    "catalogue_cross_entropy",
]

LOSSES = (FullSoftmax, BlockwiseSoftmax, SampledSoftmax)  # those that a checkpoint may name
