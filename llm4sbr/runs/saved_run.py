"""A finished run of ``llm4sbr fit``, loaded from its folder: the chosen epoch's model and the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, Trainer

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite_state
from llm4sbr.runs.bootstrap import bootstrap
from llm4sbr.runs.class_paths import renamed
from llm4sbr.runs.trainer_cli import SBRCLI
from llm4sbr.runs.trust import check_configuration
from llm4sbr.training.checkpoint import named_mismatch, read_checkpoint
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.views.quiet import quiet_lightning

# Nothing is trained, and this machine may lack the accelerator of the run.
_IDLE_TRAINER = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}


class SavedRun(NamedTuple):
    """Model, data and configuration of a finished run."""

    model: SBRModule  # on the CPU, with the weights of the checkpoint
    data: LightningDataModule
    config: dict[str, Any]  # content of config.yaml
    checkpoint: Path


def load_run(path: str | Path, checkpoint: str | Path | None = None) -> SavedRun:
    """Build the model of a run from its configuration, and load its weights.

    Only tensors and plain values are read from the checkpoint (``weights_only``).

    Args:
        path: Folder of the run, with ``config.yaml`` and ``checkpoints/best*.ckpt`` (the newest is used, as
            in ``llm4sbr test``), or one of its checkpoints.
        checkpoint: Another checkpoint of the same model, from anywhere; by default the run's best.

    Raises:
        InputError: The folder is not that of a run, its data are missing, or checkpoint and configuration
            differ.
    """
    path = Path(path)
    folder, checkpoint = (
        find_checkpoint(path) if checkpoint is None else (path, find_checkpoint(Path(checkpoint))[1])
    )
    config = read_config(folder / "config.yaml")
    cli = _build(folder, config)
    _load_weights(cli.model, checkpoint, getattr(cli.datamodule, "catalogue", None))
    if not all(head.in_training for head in cli.model.score_heads()):  # no checkpoint holds their counts
        cli.datamodule.prepare_data()
        cli.model.read_training_sessions(cli.datamodule.examples("train"), fitting=False)
    return SavedRun(cli.model.eval(), cli.datamodule, config, checkpoint)


def untrained(run: SavedRun, seed: int) -> SavedRun:
    """Return the run with its model before the first step, built from the seed of its configuration.

    Buffers that are not learned, such as the graph of the training sessions, come from the checkpoint.
    """
    cli = _build(run.checkpoint.parent.parent, run.config, seed)
    learned = dict(cli.model.named_parameters(remove_duplicate=False))  # a shared one under every name
    kept = {name: value for name, value in run.model.state_dict().items() if name not in learned}
    cli.model.load_state_dict(kept, strict=False)
    for place, head in enumerate(run.model.score_heads()):
        if not head.in_training:
            cli.model.heads[place] = head
    return run._replace(model=cli.model.eval(), data=cli.datamodule)


def _build(folder: Path, config: dict[str, Any], seed: int | Literal[False] = False) -> SBRCLI:
    bootstrap()
    try:
        with quiet_lightning():
            return _Rebuild(
                SBRModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                # Only the model and the data: no loggers, callbacks, views or seeds of the run.
                args={"model": config["model"], "data": config["data"], "trainer": _IDLE_TRAINER},
                trainer_class=Trainer,
                save_config_callback=None,
                seed_everything_default=seed,
                parser_kwargs={"exit_on_error": False},
                run=False,
            )
    except InputError as error:
        raise InputError(
            f"the run's model or data cannot be built again: {error}",
            path=folder / "config.yaml",
            hint="Its paths are relative to the folder in which it was trained",
        ) from error
    except ArgumentError as error:
        raise InputError(
            f"the run's configuration is not valid: {error}", path=folder / "config.yaml"
        ) from error


class _Rebuild(SBRCLI):
    """Parser and links of `llm4sbr fit`, without a command."""

    def before_instantiate_classes(self) -> None:
        """Skip the search for a checkpoint: no command reads one."""


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return folder and checkpoint of a run, given either of them; the newest best checkpoint of a folder.

    Raises:
        InputError: There is no such run or checkpoint, or the run has no best checkpoint.
    """
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise InputError("there is no such checkpoint", path=path)
        return path.parent.parent, path
    if not path.is_dir():
        raise InputError("there is no such run", path=path, hint="Name a folder of `llm4sbr fit`")
    # Sorted by time and then by name: files with equal times have a fixed order.
    found = sorted(path.glob("checkpoints/best*.ckpt"), key=lambda file: (file.stat().st_mtime, file.name))
    if not found:
        raise InputError(
            "this folder has no checkpoints/best*.ckpt",
            path=path,
            hint="Name the folder that `llm4sbr fit` printed, such as runs/llm4sbr/version_0",
        )
    return path, found[-1]


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration of a run.

    Raises:
        InputError: The file is missing, is not the configuration of a run, or names classes that are not
            known (`check_configuration`).
    """
    import yaml

    try:
        config = renamed(yaml.safe_load(path.read_text("utf-8")))
    except RecursionError as error:
        raise InputError("the run's configuration is nested too deeply", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError("the run's configuration is not text in UTF-8", path=path) from error
    except OSError as error:
        raise InputError(
            "the run's configuration cannot be read", path=path, hint="`llm4sbr fit` writes it"
        ) from error
    except yaml.YAMLError as error:
        raise InputError("the run's configuration is not YAML", path=path) from error
    if not isinstance(config, dict) or not config.get("model") or not config.get("data"):
        raise InputError("this is not the configuration of a run: it names no model and data", path=path)
    for part in ("model", "data", "trainer", "views"):
        found = config[part] = {} if config.get(part) is None else config[part]
        if not isinstance(found, dict) or not isinstance(found.get("init_args", {}), dict):
            raise InputError(f"the run's configuration has no valid {part}", path=path, value=found)
    check_configuration(config, path)
    return config


def checkpoint_options(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Arguments of every `ModelCheckpoint` in a configuration, to be changed in place."""
    trainer = config.get("trainer") or {}
    callbacks = trainer.get("callbacks")
    found = [
        one for one in (callbacks if isinstance(callbacks, list) else [callbacks]) if isinstance(one, dict)
    ]
    kept = [one for one in found if str(one.get("class_path")).endswith("ModelCheckpoint")]
    for one in kept:
        one["init_args"] = one.get("init_args") or {}
    return [one["init_args"] for one in kept if isinstance(one["init_args"], dict)]


def _load_weights(model: SBRModule, checkpoint: Path, catalogue: Catalogue | None) -> None:
    content = read_checkpoint(checkpoint)
    model.check_items(content, catalogue, checkpoint)
    state = content["state_dict"]
    require_finite_state(state, finite=frozenset(dict(model.named_parameters())), path=checkpoint)
    with named_mismatch(checkpoint):
        model.load_state_dict(state)
