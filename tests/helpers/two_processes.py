"""Training runs in one process, or in two that Lightning starts; what each process found goes into a file.

``python two_processes.py OUT DEVICES CASES``, cases as JSON: a name and the options of `run`.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
from letters import title_views
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from one_and_two import leave
from plain import plain_bare, plain_wrapped

from llm4sbr import SBRModule, backbones
from llm4sbr.callbacks import Pictures, RecommendationWriter, SampleSessions, ViewCache, pictures
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn import heads
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.view_predictor import ViewPredictor

# Drawing takes longer than all trainings here, and what is drawn is compared as numbers.
pictures.run_figures = lambda *given: {}


class Watch(Callback):
    """Notes the targets that a process trained on and its first random number."""

    def __init__(self) -> None:
        self.targets: list[int] = []
        self.drawn: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note."""
        self.targets += batch.target.tolist()
        if self.drawn is None:
            self.drawn = torch.rand(()).item()


def make_model(num_items: int, case: dict[str, Any]) -> SBRModule:
    """The model, trained by plain gradient descent: Adam makes a step of a gradient that is mere rounding."""
    chosen = getattr(backbones, case.get("backbone", "SRGNN"))
    # Masks differ from process to process, so what is compared has none.
    options = {name: 0.0 for name in inspect.signature(chosen).parameters if "dropout" in name}
    backbone = chosen(num_items, 8, **options, **case.get("options", {}))
    if case.get("wrapped", True):
        parts: dict[str, Any] = {
            "heads": [getattr(heads, name)(*values) for name, values in case.get("heads", {}).items()],
            "alignment": Alignment(**case.get("alignment", {})),
        }
        if case.get("predict"):
            parts["view_predictor"] = ViewPredictor(4, hide=0.0)  # processes hide different sessions
        model = plain_wrapped(backbone, text_dim=8, **parts, **case.get("model", {}))
    else:
        model = plain_bare(backbone)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.03)
    return model


def run(root: Path, devices: int, case: dict[str, Any]) -> dict[str, Any]:
    """Fit two epochs, test and predict.

    Args:
        root: For what runs leave behind.
        devices: Processes.
        case: ``shop``, ``backbone`` and its ``options``, ``wrapped``, ``model`` (the wrapper's options), its
            ``heads`` and ``alignment`` by name, ``predict`` for a predictor of views,
            ``batch_size`` of all processes together, ``bucket``,
            ``look`` to keep what callbacks show.
    """
    seed_everything(3, verbose=False)
    shop = SessionDataModule(
        case["shop"],
        split=SplitBy(by="column"),
        batch_size=case.get("batch_size", 8) // devices,
        eval_batch_size=4 // devices,
        bucket=case.get("bucket", 0),
    )
    views = Path(case["shop"]) / "views"
    if not views.exists():  # the first run, in one process, makes them
        title_views(shop, views)
    model, watch = make_model(shop.num_items, case), Watch()
    samples, pictured = SampleSessions(5), Pictures(5)
    looked = [samples, pictured] if case.get("look") else []
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
        logger=False, enable_checkpointing=False, callbacks=[watch, ViewCache(str(views)), *looked],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root, log_every_n_steps=1,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, shop)
    look = pictured.found
    fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (tested,) = trainer.test(model, shop, verbose=False)
    written = Path(case["shop"]) / f"next-{devices}.parquet"
    trainer.callbacks.append(RecommendationWriter(str(written)))
    predicted = [index for batch in trainer.predict(model, shop) for index in batch.example_index.tolist()]
    return {
        "fit": fitted,
        "test": tested,
        "weights": {name: value.tolist() for name, value in model.named_parameters()},
        "predicted": predicted,
        "written": str(written),
        "targets": watch.targets,
        "drawn": watch.drawn,
        **({} if look is None else shown(samples, pictured.before, look)),
    }


def shown(samples: SampleSessions, before: Any, look: Any) -> dict[str, Any]:
    """What the callbacks show of the chosen epoch."""
    return {
        "samples": list(samples.stories.values()),
        "ranks": [look.length.tolist(), look.rank.tolist()],
        "spaces": [part.tolist() for part in (*(before or ()), *(look.spaces or ()))],
    }


def main(out: Path, devices: int, cases: dict[str, dict[str, Any]]) -> None:
    """Run every case and write what this process found."""
    leave(out, devices, {name: run(out.parent, devices, case) for name, case in cases.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
