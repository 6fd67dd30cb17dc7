"""Stage 1 inference: selection of sessions, queries to the LLM, and storage of answers and views."""
