"""FSDP on CPU processes, which torch and Lightning refuse: sharded training can be tested without GPUs.

What is patched is where torch looks for an accelerator, and that checkpoints are offloaded to the CPU: torch
would free the memory that it hands out. Sharding, its communication and its checkpoints are torch's own.
"""

from typing import Any

import lightning.fabric.strategies.fsdp as of_fabric
import lightning.pytorch.strategies.fsdp as of_pytorch
import torch
from lightning.pytorch.plugins import FSDPPrecision
from torch.distributed.fsdp import (
    FullStateDictConfig,
    FullyShardedDataParallel,
    MixedPrecision,
    StateDictType,
)
from torch.distributed.fsdp import fully_sharded_data_parallel as of_torch
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle
from torch.distributed.fsdp.api import FullOptimStateDictConfig


def _init_device_handle(state: Any, *_: Any, **__: Any) -> Any:
    state._device_handle = _FSDPDeviceHandle.from_device(torch.device("cpu"))
    return state


def _full_state_dict_context(module: Any, world_size: int, rank0_only: bool = True) -> Any:
    kept = {"offload_to_cpu": False, "rank0_only": False}
    return FullyShardedDataParallel.state_dict_type(
        module, StateDictType.FULL_STATE_DICT, FullStateDictConfig(**kept), FullOptimStateDictConfig(**kept)
    )


class Float64(FSDPPrecision):
    """FSDP in float64, which Lightning does not offer: rounding stays far from what is wrong."""

    def __init__(self) -> None:
        super().__init__("32-true")
        self._desired_input_dtype = torch.float64

    @property
    def mixed_precision_config(self) -> MixedPrecision:
        """Nothing is mixed."""
        return MixedPrecision(torch.float64, torch.float64, torch.float64)


class CPUFSDP(of_pytorch.FSDPStrategy):
    """A type of its own: Lightning asks for CUDA where the strategy is exactly FSDPStrategy."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        of_torch._init_device_handle = _init_device_handle
        for module in (of_pytorch, of_fabric):
            module._get_full_state_dict_context = _full_state_dict_context
