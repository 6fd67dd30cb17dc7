"""The experiments of llm4sbr: ``python -m experiments``, from the project root. Not part of the wheel."""
