"""Data modules from raw data to batches, one format per file. Import them as ``llm4sbr.datamodules``."""

if __name__ != "llm4sbr.datamodules":  # a second copy of every class would fail isinstance silently
    raise ImportError("import llm4sbr.datamodules, not the bare folder 'datamodules'")

from .amazon_beauty import AmazonBeauty
from .author_pickles import AuthorPickles
from .base import ExampleDataModule
from .movielens import MovieLens1M, MovieLens100K
from .public_logs import Diginetica, Yoochoose
from .recbole_atomic import RecBoleAtomic
from .rules import Columns, KCore, Sessions, SplitBy
from .session_module import SessionDataModule

__all__ = [
    "AmazonBeauty",
    "AuthorPickles",
    "Columns",
    "Diginetica",
    "ExampleDataModule",
    "KCore",
    "MovieLens1M",
    "MovieLens100K",
    "RecBoleAtomic",
    "SessionDataModule",
    "Sessions",
    "SplitBy",
    "Yoochoose",
]

# Registered by one entry point in pyproject.toml: the data modules, without their base class and options.
_EXPORTED = [globals()[name] for name in __all__]
PLUGINS = tuple(k for k in _EXPORTED if issubclass(k, ExampleDataModule) and k is not ExampleDataModule)
