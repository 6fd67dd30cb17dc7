"""``python -m llm4sbr`` is the same as ``llm4sbr``."""

import sys

from llm4sbr.cli import main

sys.exit(main())
