import pytest
import torch

from llm4sbr.tuning.tuner import TitleTuner


@pytest.fixture
def tuner(tiny_llm):
    def make(**options):
        torch.manual_seed(0)
        settings = {"rank": 4, "dropout": 0.0, "dtype": "float32", "learning_rate": 5e-3, "warmup_steps": 2}
        return TitleTuner(tiny_llm, **{**settings, **options})

    return make
