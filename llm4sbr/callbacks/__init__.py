"""Lightning callbacks."""

from llm4sbr.callbacks.recommendation_writer import RecommendationWriter
from llm4sbr.callbacks.resume_point import ResumePoint
from llm4sbr.callbacks.run_summary import RunSummary
from llm4sbr.callbacks.view_cache import ViewCache

__all__ = ["RecommendationWriter", "ResumePoint", "RunSummary", "ViewCache"]
