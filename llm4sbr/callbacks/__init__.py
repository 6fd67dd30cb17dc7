"""Lightning callbacks."""

from llm4sbr.callbacks.candidate_filter import CandidateFilter
from llm4sbr.callbacks.epoch_choice import EpochChoice
from llm4sbr.callbacks.epoch_lines import EpochLines
from llm4sbr.callbacks.pictures import Pictures
from llm4sbr.callbacks.recommendation_writer import RecommendationWriter
from llm4sbr.callbacks.resume_point import ResumePoint
from llm4sbr.callbacks.run_summary import RunSummary
from llm4sbr.callbacks.sample_sessions import SampleSessions
from llm4sbr.callbacks.throughput import Throughput
from llm4sbr.callbacks.view_cache import ViewCache
from llm4sbr.callbacks.warm_start import WarmStart

__all__ = [
    "CandidateFilter",
    "EpochChoice",
    "EpochLines",
    "Pictures",
    "RecommendationWriter",
    "ResumePoint",
    "RunSummary",
    "SampleSessions",
    "Throughput",
    "ViewCache",
    "WarmStart",
]
