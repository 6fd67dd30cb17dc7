"""WandbLogger: Lightning's, that goes on without a login and keeps what a run was trained with."""

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
    """Lightning's `WandbLogger`; options are the same.

    Where nobody is logged in, or the server cannot be reached, the run is kept offline in place of ending
    with an error, and `wandb sync` sends it later. `ViewCache` hands it the view store of a run, which
    becomes an artifact of type ``views``, named by what made the views; equal contents are stored once.
    ``log_model: true`` makes an artifact of the chosen checkpoint.
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
        """Make an artifact of a view store.

        Args:
            path: The store's folder; another process may be writing to it.
            spec: The views that the run uses.
        """
        import wandb

        folder = Path(path).resolve()  # an offline run is sent later, from wherever
        about: dict[str, Any] = {"views": spec.describe(), "fingerprint": spec.fingerprint}
        artifact = wandb.Artifact(f"views-{spec.fingerprint[:12]}", type="views", metadata=about)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "views.sqlite"
            copy_database(folder / copy.name, copy)
            artifact.add_file(str(copy), copy.name)
            for table in sorted(folder.glob("titles-*.safetensors")):
                artifact.add_file(str(table), table.name, policy="immutable")  # written once, never changed
            self.experiment.log_artifact(artifact)
