"""Serving: a trained model as one safe folder, and recommendations from it by the shop's own ids.

>>> from llm4sbr.serving import Recommender
>>> recommender = Recommender.load("bundle")  # doctest: +SKIP
>>> recommender.recommend([["B001", "B002"]], k=20)  # doctest: +SKIP

Nothing here imports Lightning, transformers or a language model; `llm4sbr export` (`llm4sbr.runs.export`)
makes the folder where the model was trained.
"""

from llm4sbr.serving.explain import Explanation
from llm4sbr.serving.recommendation import Recommendation
from llm4sbr.serving.recommender import Recommender

__all__ = ["Explanation", "Recommendation", "Recommender"]
