"""Stage 1 on Lightning's `Trainer.predict`: one process or many, on one machine or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, IterableDataset

from llm4sbr.views.inference.progress import StopRequest
from llm4sbr.views.inference.worker import Batch, Run
from llm4sbr.views.quiet import quiet_lightning


class ViewInference(LightningModule):
    """Queries the engine about a chunk of sessions; a `ViewWriter` pulls the answers and writes them.

    Args:
        prepare: Function that creates this process's `Run`. It is called once every process has reached
            `setup`, and therefore after the first process has created the store.
    """

    def __init__(self, prepare: Callable[[], Run]) -> None:
        super().__init__()
        self._prepare = prepare
        self.run: Run | None = None

    def setup(self, stage: str) -> None:
        """Create the run; Lightning synchronises the processes before it calls this method."""
        self.run = self._prepare()

    def predict_step(self, batch: list[bytes], batch_idx: int) -> Iterator[Batch]:
        """Yield answers as they arrive; the engine is queried only when they are pulled."""
        assert self.run is not None
        return self.run.query(batch)


class Chunks(IterableDataset[list[bytes]]):
    """Every ``world``-th chunk of sessions, until a stop is requested.

    The chunks depend on the selection of sessions alone, not on the stored answers: processes that read the
    store at different times still never query the same session.

    Args:
        keys: Keys of the selected sessions.
        size: Number of sessions per chunk.
        stop: Stop request, checked before each chunk.
        rank: Rank of this process.
        world: Number of processes.
    """

    def __init__(
        self, keys: Sequence[bytes], size: int, stop: StopRequest, rank: int = 0, world: int = 1
    ) -> None:
        self.keys, self.size, self.stop, self.rank, self.world = keys, size, stop, rank, world

    def __iter__(self) -> Generator[list[bytes], None, None]:
        for begin in range(self.rank * self.size, len(self.keys), self.world * self.size):
            if self.stop.requested:
                return
            yield list(self.keys[begin : begin + self.size])

    def loader(self) -> DataLoader[list[bytes]]:
        """Create a loader of one chunk at a time, in this process."""
        return DataLoader(self, batch_size=None)


def inference_trainer(
    accelerator: str = "cpu", devices: int | str = 1, num_nodes: int = 1, strategy: str = "auto"
) -> Trainer:
    """Create a trainer for prediction only: no logger, no checkpoints, no progress bar.

    Args:
        accelerator: Lightning's name of the accelerator.
        devices: Number of processes on each machine.
        num_nodes: Number of machines; they share the store's folder.
        strategy: ``auto``, or any strategy of Lightning that runs one process per device.
    """
    several = num_nodes > 1 or devices not in (1, "1")
    chosen: Any = strategy
    if several and strategy in ("auto", "ddp"):
        chosen = DDPStrategy(timeout=timedelta(days=7))  # ranks wait for the slowest one
    with quiet_lightning():
        return Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=chosen,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
