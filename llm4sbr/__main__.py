"""``python -m llm4sbr`` is the same as ``llm4sbr``."""

from llm4sbr.cli.main import console

console()
