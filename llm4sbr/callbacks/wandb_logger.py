"""WandbLogger: Lightning's logger with an offline fallback and artifacts of the view store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from llm4sbr.views.store.database import copy_database
from llm4sbr.views.store.spec import ViewSpec

if TYPE_CHECKING:
    from wandb import Run


class WandbLogger(LightningWandbLogger):
    """Lightning's `WandbLogger` with the same options.

    Without a login or a connection to the server, the run is stored offline instead of failing, and
    `wandb sync` uploads it later. `ViewCache` passes the view store of a run, which is logged as an artifact
    of type ``views``, named after the settings of the views; equal contents are stored once. With
    ``log_model: true`` the chosen checkpoint is logged as an artifact.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run."""
        import wandb

        try:
            run: Run = LightningWandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            rank_zero_warn(f"Weights & Biases: {error} The run is kept offline; `wandb sync` sends it.")
            self._wandb_init["mode"] = "offline"
            run = LightningWandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
        return run

    @rank_zero_only
    def log_view_store(self, path: str | Path, spec: ViewSpec) -> None:
        """Log a view store as an artifact.

        Args:
            path: Folder of the store; another process may be writing to it.
            spec: Views that the run uses.
        """
        import wandb

        folder = Path(path).resolve()  # an offline run is uploaded later, possibly from another folder
        about: dict[str, Any] = {"views": spec.describe(), "fingerprint": spec.fingerprint}
        artifact = wandb.Artifact(f"views-{spec.fingerprint[:12]}", type="views", metadata=about)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "views.sqlite"
            copy_database(folder / copy.name, copy)
            artifact.add_file(str(copy), copy.name)
            for table in sorted(folder.glob("titles-*.safetensors")):
                artifact.add_file(str(table), table.name, policy="immutable")  # written once, never changed
            self.experiment.log_artifact(artifact)
