"""Stage 1 under Lightning's `Trainer.predict`: one process or many, on one machine or several."""

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
    """Asks the engine about a chunk of sessions; a `ViewWriter` pulls the answers and writes them.

    Args:
        prepare: Gives the run that this process takes part in. It is called when every process has come to
            `setup`, and so after the first has made the store, wherever and whenever they were started.
    """

    def __init__(self, prepare: Callable[[], Run]) -> None:
        super().__init__()
        self._prepare = prepare
        self.run: Run | None = None

    def setup(self, stage: str) -> None:
        """Lightning has the processes wait for each other before it calls this."""
        self.run = self._prepare()

    def predict_step(self, batch: list[bytes], batch_idx: int) -> Iterator[Batch]:
        """Answers as they come; nothing is asked until they are pulled."""
        assert self.run is not None
        return self.run.ask(batch)


class Chunks(IterableDataset[list[bytes]]):
    """Every ``world``-th chunk of sessions, until a stop is asked for.

    The chunks follow from the choice of sessions alone, not from what is answered already: processes that
    look at the store at different times still never ask about the same session.

    Args:
        keys: The chosen sessions.
        size: Sessions per chunk.
        stop: Looked at before each chunk.
        rank: Of this process.
        world: How many processes there are.
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
        """One chunk at a time, in this process."""
        return DataLoader(self, batch_size=None)


def inference_trainer(
    accelerator: str = "cpu", devices: int | str = 1, num_nodes: int = 1, strategy: str = "auto"
) -> Trainer:
    """A trainer that only predicts: no logger, no checkpoints, no bar of its own.

    Args:
        accelerator: As Lightning names it.
        devices: Processes on each machine.
        num_nodes: Machines; they share the store's folder.
        strategy: ``auto`` or any of Lightning's that runs one process per device.
    """
    several = num_nodes > 1 or devices not in (1, "1")
    chosen: Any = strategy
    if several and strategy in ("auto", "ddp"):
        chosen = DDPStrategy(timeout=timedelta(days=7))  # ranks wait for the slowest, and chunks differ
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
