"""Strong, cheap baselines: popularity, item-kNN and session-kNN, measured as the neural models are.

>>> from llm4sbr.baselines import BaselineModule, SessionKNN
>>> model = BaselineModule(SessionKNN(weighting="linear", similarity="dot"))
"""

from .clicks import DECAYS, Baseline
from .item_knn import ItemKNN
from .module import BaselineModule
from .popularity import Popularity
from .session_knn import SessionKNN

__all__ = ["DECAYS", "Baseline", "BaselineModule", "ItemKNN", "Popularity", "SessionKNN"]
