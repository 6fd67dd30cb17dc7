"""Strong, cheap baselines: popularity, item-kNN and session-kNN, evaluated like the neural models.

>>> from llm4sbr.baselines import BaselineModule, SessionKNN
>>> model = BaselineModule(SessionKNN(weighting="linear", similarity="dot"))
"""

from llm4sbr.baselines.clicks import Baseline
from llm4sbr.baselines.item_knn import ItemKNN
from llm4sbr.baselines.module import BaselineModule
from llm4sbr.baselines.popularity import Popularity
from llm4sbr.baselines.session_knn import SessionKNN
from llm4sbr.nn.counting import DECAYS

__all__ = ["DECAYS", "Baseline", "BaselineModule", "ItemKNN", "Popularity", "SessionKNN"]
