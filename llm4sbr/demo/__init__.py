"""The demo: sessions of MovieLens, intents from an LLM, two models, and a page that compares them."""
