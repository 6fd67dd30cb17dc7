"""The experiments of llm4sbr: ``python -m experiments``, from the project's root. Not part of the wheel."""
