"""Stand-ins for a data module, an engine and an encoder; also run as a process that tests kill."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Examples, Split
from llm4sbr.views.engines import Answer, Failure, Reply
from llm4sbr.views.identity import EngineIdentity, ModelIdentity
from llm4sbr.views.store import ViewStore

WORDS = [
    "rose",
    "soap",
    "lemon",
    "shampoo",
    "night",
    "cream",
    "nail",
    "polish",
    "eye",
    "liner",
    "silk",
    "powder",
    "hair",
    "brush",
    "argan",
    "oil",
]


def make_examples(sessions: list[list[int]], first_index: int = 0) -> Examples:
    """Every prefix of every session."""
    clicks, start, end, target, session = [], [], [], [], []
    for number, items in enumerate(sessions):
        for cut in range(1, len(items)):
            start.append(len(clicks))
            end.append(len(clicks) + cut)
            target.append(items[cut])
            session.append(number)
        clicks += items
    arrays = [np.array(part, dtype=np.int64) for part in (clicks, start, end, target, session)]
    return Examples(*arrays, tuple(str(n) for n in range(len(sessions))), first_index)


class FakeSource:
    """Random sessions over a small catalogue."""

    def __init__(
        self, num_items: int = 30, num_sessions: int = 40, titles: Sequence[str] | None = None
    ) -> None:
        name, draw = random.Random(1), random.Random(7)
        titles = titles or [f"{' '.join(name.sample(WORDS, 3))} {n}" for n in range(num_items)]
        self.catalogue = Catalogue(tuple(f"i{n}" for n in range(len(titles))), tuple(titles))
        self.parts: dict[Split, Examples] = {}
        begin = 0
        for split, count in (
            ("train", num_sessions),
            ("validate", num_sessions // 4),
            ("test", num_sessions // 4),
        ):
            sessions = [draw.choices(range(1, len(titles) + 1), k=draw.randint(2, 6)) for _ in range(count)]
            self.parts[split] = make_examples(sessions, begin)
            begin += len(self.parts[split])
        self.parts["predict"] = make_examples([], begin)

    def examples(self, split: Split) -> Examples:
        return self.parts[split]

    def keys(self, split: Split) -> list[bytes]:
        return [self.catalogue.session_key(prefix) for prefix in self.parts[split].prefixes()]


def last_title(prompt: str) -> str:
    """Repeats the last listed title, as a small model often does."""
    return re.findall(r"^\d+\. (.*)$", prompt, flags=re.MULTILINE)[-1]


class StubEngine:
    """Answers by a function of the prompt and remembers what it was asked."""

    def __init__(
        self,
        reply: Callable[[str], str] = last_title,
        batch_size: int = 8,
        name: str = "stub",
        delay: float = 0.0,
        log: Path | None = None,
    ) -> None:
        self.reply, self._batch_size, self.delay, self.log = reply, batch_size, delay, log
        self._identity = EngineIdentity(ModelIdentity(name, name), {"strategy": "greedy"}, "")
        self.asked: list[str] = []

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        for begin in range(0, len(prompts), self._batch_size):
            part = prompts[begin : begin + self._batch_size]
            if self.log:
                with self.log.open("a") as file:
                    file.writelines(hashlib.md5(prompt.encode()).hexdigest() + "\n" for prompt in part)
            time.sleep(self.delay)
            self.asked += part
            yield [
                Reply(
                    begin + at, Answer(self.reply(prompt), len(prompt.split()), len(prompt.split()), 3, True)
                )
                for at, prompt in enumerate(part)
            ]


class StubEncoder:
    """A bag of hashed words, normalised."""

    def __init__(self, name: str = "bag", dim: int = 64) -> None:
        self._identity, self.dim = ModelIdentity(name, name), dim

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def encode(self, texts: Sequence[str]) -> Tensor:
        vectors = torch.zeros(len(texts), self.dim)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=7).digest(), "big")
                vectors[row] += torch.randn(self.dim, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.normalize(vectors, dim=-1)


class FailingEngine(StubEngine):
    """Gives up on some prompts."""

    def __init__(self, fails: Callable[[str], bool], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.fails = fails

    def generate(self, prompts: Sequence[str]) -> Iterator[list[Reply]]:
        for group in super().generate(prompts):
            yield [
                Reply(place, Failure("HTTP 500 (tries: 7)") if self.fails(prompts[place]) else outcome)
                for place, outcome in group
            ]


def log_what_is_reported(path: Path) -> None:
    """Write down, after `add_answers` returned, what it was told is safe."""
    write = ViewStore.add_answers

    def add_answers(self: ViewStore, rows: Iterable[Any]) -> None:
        rows = list(rows)
        write(self, rows)
        with path.open("a") as file:
            file.write("".join(f"{row[0].view} {row[1].hex()} {row[2].text}\n" for row in rows))

    ViewStore.add_answers = add_answers  # type: ignore[method-assign]


def run(folder: Path, processes: int, *delays: float) -> int:
    """Stage 1, slowly, for a test to stop; `delays` are seconds per batch in each process."""
    from llm4sbr.views.inference.lightning import inference_trainer
    from llm4sbr.views.inference.pipeline import infer_views

    rank = int(os.environ.get("LOCAL_RANK", "0"))
    folder.mkdir(exist_ok=True)
    log_what_is_reported(folder / "reported.log")
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    with ViewStore(folder) as store:
        summary = infer_views(
            FakeSource(),
            store,
            engine=StubEngine(delay=delays[rank], log=folder / "asked.log"),
            encoder=StubEncoder(),
            progress=False,
            trainer=inference_trainer("cpu", processes) if processes > 1 else None,
        )
    (folder / f"out-{rank}").write_text(str(summary))
    return 3 if summary.interrupted else 0


def serve() -> None:
    """Fork a run for each line of arguments: importing torch takes longer than a run."""
    import lightning.pytorch  # noqa: F401

    for line in sys.stdin:
        sys.argv[1:] = line.rstrip("\n").split("\t")  # with which Lightning starts the other processes
        pid = os.fork()
        if not pid:
            os.dup2(os.open(f"{sys.argv[1]}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            os._exit(run(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Forked:
    """Runs of stage 1, one after the other, each a process of its own; what they say is in FOLDER.err."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid = 0  # of a run that nobody has waited for

    def start(self, folder: Path, *delays: float) -> int:
        """Begin, in as many processes as there are delays; returns the first one's id."""
        assert self._server.stdin is not None
        if self._pid:  # a test failed before it waited: its answer still stands in the pipe
            self.kill(signal.SIGKILL)
            self.wait()
        words = [str(folder), str(len(delays)), *map(str, delays)]
        self._server.stdin.write("\t".join(words) + "\n")
        self._server.stdin.flush()
        self._pid = self._number()
        return self._pid

    def kill(self, number: int) -> None:
        """Send a signal to the latest; nothing where it has ended already."""
        assert self._pid > 1  # 0 would be the whole group of the tests
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self, timeout: float = 30.0) -> int:
        """Exit status of the latest; below 0 for a signal, SIGKILL among them if it takes too long."""
        timer = threading.Timer(timeout, os.kill, (self._pid, signal.SIGKILL))
        timer.start()
        try:
            return self._number()
        finally:
            timer.cancel()
            self._pid = 0

    def _number(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._server.communicate("")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "serve":
        serve()
    else:
        sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])))
