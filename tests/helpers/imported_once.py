"""What most commands import, for processes that are forked (`scripts`)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # last: the installed llm4sbr is tested, not the checkout

import torch_geometric  # noqa: F401

import experiments.study.groups
import experiments.study.ledger  # noqa: F401
import llm4sbr.datamodules  # noqa: F401
