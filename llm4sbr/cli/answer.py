"""The function behind ``llm4sbr views answer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm4sbr.cli.inference import Interpreter
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveFloat, check_arguments
from llm4sbr.runs.answering import Answering, ServedViews
from llm4sbr.runs.trainer_cli import say
from llm4sbr.serving.ask_queue import AskQueue
from llm4sbr.views.inference.progress import StopRequest
from llm4sbr.views.store import ViewStore


def answer(
    folder: str,
    bundle: str = "bundle",
    out: str | None = None,
    once: bool = False,
    every_s: PositiveFloat = 2.0,
    **options: Any,
) -> None:
    """Answer the sessions that `llm4sbr serve BUNDLE --ask FOLDER` finds uncertain, most uncertain first.

    It runs until SIGTERM, on the machine of the server. Model, prompts, localisation and encoder are those of
    the views of the bundle. The server adds the views to its bundle a few seconds later. Run it again to
    continue after a stop.

    Args:
        folder: Folder of the queue.
        bundle: Folder of the bundle that the server serves.
        out: Folder of the view store for the answers; by default `views` in the folder of the queue.
        once: Whether to end when the queue is empty.
        every_s: Seconds between looks at an empty queue.
        **options: Arguments of `Interpreter`.

    Raises:
        InputError: There is no such queue, the bundle is damaged, or the options give other views than those
            of the bundle.
        StoreError: Another process writes to the store, the disk is full, or the store is damaged.
    """
    check_arguments(answer, {"every_s": every_s})
    interpreter, served = Interpreter(**options), ServedViews.of(bundle)
    if not Path(folder).is_dir():
        raise InputError(
            "there is no queue here", path=folder, hint=f"`llm4sbr serve {bundle} --ask {folder}` makes it"
        )
    queue = AskQueue(folder)
    with ViewStore(out or Path(folder) / "views") as store, StopRequest() as stop:
        answering = Answering(
            queue,
            store,
            served,
            encoder=interpreter.encoder(),
            engine=interpreter.engine(served.catalogue),
            prompts=interpreter.prompts,
            r=interpreter.localise.r,
        )
        total = answering.until(stop, once=once, seconds=every_s)
        say(f"{total:,} sessions answered, {len(queue):,} wait")
    queue.close()
