"""What a command does at its start, and what an import does not."""

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys, warnings
import torch
precision = torch.get_float32_matmul_precision()
import llm4sbr
left_out = ("llm4sbr.__main__", "llm4sbr.adapters.recbole")  # runs; needs another distribution
for module in pkgutil.walk_packages(llm4sbr.__path__, "llm4sbr."):
    if not module.name.startswith(left_out):
        importlib.import_module(module.name)
before = list(warnings.filters)
assert torch.get_float32_matmul_precision() == precision
from llm4sbr.runs.bootstrap import bootstrap
bootstrap()
print(len([one for one in warnings.filters if one not in before]), torch.get_float32_matmul_precision())
count = len(warnings.filters)
bootstrap()
print(len(warnings.filters) - count)
"""


def test_filters_and_precision_are_set_by_the_bootstrap_and_by_no_import():
    """Seen to fail with a filter installed where a module is imported."""
    shown = subprocess.run([sys.executable, "-P", "-c", CODE], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["5", "high", "0"]
