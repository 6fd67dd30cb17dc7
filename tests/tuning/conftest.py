import pytest
import torch

from llm4sbr.tuning.lora import LoRA
from llm4sbr.tuning.tuner import TitleTuner


@pytest.fixture
def tuner(tiny_llm):
    def make(**options):
        torch.manual_seed(0)
        settings = {"dtype": "float32", "learning_rate": 5e-3, "warmup_steps": 2}
        settings["lora"] = LoRA(rank=4, dropout=0.0)
        return TitleTuner(tiny_llm, **{**settings, **options})

    return make
