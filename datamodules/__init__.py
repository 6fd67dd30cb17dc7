"""Raw data to sessions to batches, one format a file. Import them as ``llm4sbr.datamodules``."""

if __name__ != "llm4sbr.datamodules":  # a second copy of every class would fail isinstance silently
    raise ImportError("import llm4sbr.datamodules, not the bare folder 'datamodules'")
