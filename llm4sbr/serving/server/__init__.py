"""HTTP server of a bundle: JSON API, micro-batches, limits, metrics, reload and graceful shutdown.

It needs the extra ``serve`` (uvicorn, msgspec and prometheus_client), and no Lightning.
"""
