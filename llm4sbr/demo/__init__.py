"""The tour: real clicks, a real LLM, a bare and a wrapped model, and a page that compares them."""
