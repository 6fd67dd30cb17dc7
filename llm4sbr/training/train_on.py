"""Training that goes on from a checkpoint with another catalogue: what stays, and what begins anew.

The weights, the optimiser's state, the number of finished epochs and the number of steps stay. The order of
examples, random states, the learning rate with its schedule, and the choice of the best epoch begin anew:
with other examples and other validation sessions they have another meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.carry_over import carried_optimizer, item_rows
from llm4sbr.training.schedules import CosineToEnd

_COUNTS = ("scheduler_progress", "batch_progress")  # progress within an epoch, with totals of the whole run
_STEPS = ("automatic_optimization.optim_progress", "manual_optimization.optim_step_progress", "state_dict")


def begin_epoch(checkpoint: dict[str, Any], trainer: Trainer) -> int:
    """Set a checkpoint to the start of an epoch, in place, and return the number of finished epochs.

    An epoch that the checkpoint was saved in begins again, because its other examples are not known.

    Args:
        checkpoint: Loaded checkpoint.
        trainer: Trainer that loads it for ``fit``.
    """
    saved: Mapping[str, Any] = checkpoint["loops"]["fit_loop"]
    epochs, batches = saved["epoch_progress"], saved["epoch_loop.batch_progress"]
    current = epochs["current"]
    done = int(current["ready" if batches["is_last_batch"] else "processed"])
    fresh: dict[str, Any] = trainer.fit_loop.state_dict()
    finished = {"ready": done, "started": done, "processed": done, "completed": done}
    fresh["epoch_progress"] = {"total": {**finished}, "current": {**finished}}
    for name in _COUNTS:
        key = f"epoch_loop.{name}"  # all equal: a batch that has just been trained is completed
        fresh[key]["total"] = dict.fromkeys(saved[key]["total"], saved[key]["total"]["ready"])
    for name in _STEPS:
        fresh[f"epoch_loop.{name}"] = saved[f"epoch_loop.{name}"]
    checkpoint["loops"]["fit_loop"] = fresh
    checkpoint.pop("callbacks", None)
    checkpoint.pop(type(getattr(trainer, "datamodule", None)).__qualname__, None)  # the order of the examples
    return done


def take_optimizers(
    checkpoint: dict[str, Any], trainer: Trainer, model: LightningModule, change: CatalogueChange
) -> None:
    """Convert the optimisers' states of a checkpoint in place; rates and schedules are those of this fit.

    Args:
        checkpoint: Loaded checkpoint, after `begin_epoch`.
        trainer: Trainer with its optimisers.
        model: The model.
        change: How the catalogues differ.

    Raises:
        InputError: If a state is not valid, or cannot be divided by item.
    """
    if "optimizer_states" not in checkpoint:
        return  # the Trainer reports weights without a state
    try:
        _take(checkpoint, trainer, model, change)
    except InputError:
        raise
    except Exception as error:  # a foreign state fails in many ways
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"the optimiser's state cannot be carried over to other items: {said}") from error


def _take(
    checkpoint: dict[str, Any], trainer: Trainer, model: LightningModule, change: CatalogueChange
) -> None:
    rows, parameters = item_rows(model), dict(model.named_parameters())
    name_of = {id(parameter): name for name, parameter in parameters.items()}
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=False):
        names = [name_of.get(id(one), "") for group in optimizer.param_groups for one in group["params"]]
        saved = [len(group["params"]) for group in state["param_groups"]]
        if saved != [len(group["params"]) for group in optimizer.param_groups]:
            continue  # loading reports another optimiser
        state["state"] = carried_optimizer(state["state"], names, rows, parameters, change)
        state["param_groups"] = optimizer.state_dict()["param_groups"]
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, CosineToEnd):
            config.scheduler.T_max = max(1, steps_left(checkpoint, trainer))
    checkpoint["lr_schedulers"] = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]


def steps_left(checkpoint: Mapping[str, Any], trainer: Trainer) -> int:
    """Number of steps until the Trainer's limit of epochs or steps, after `begin_epoch`."""
    limits = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        limits.append((trainer.max_epochs - done) * steps)
    if trainer.max_steps >= 0:
        limits.append(trainer.max_steps - int(checkpoint["global_step"]))
    return min(limits, default=1)
