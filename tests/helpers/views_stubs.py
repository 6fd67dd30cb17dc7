"""Stand-ins for a data module, an engine and an encoder; also run as a process that tests kill."""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forks import Fork
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


class Stage1:
    """Runs of stage 1, each a process of its own, as tests stop them; what they say is in FOLDER.err."""

    def __init__(self) -> None:
        self._latest: Fork | None = None

    def start(self, folder: Path, *delays: float, anew: bool = False) -> None:
        """Begin, in as many processes as there are delays; `anew` where the others must be its children."""
        words = [__file__, str(folder), str(len(delays)), *map(str, delays)]
        err = folder.with_name(f"{folder.name}.err")
        environment = {**os.environ, **({"STARTS_ANEW": "1"} if anew else {})}
        self._latest = Fork(words, folder.parent, environment, Path(os.devnull), err)

    def kill(self, number: int) -> None:
        """Send a signal to the latest; nothing where it has ended already."""
        assert self._latest is not None
        self._latest.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Exit status of the latest; below 0 for a signal, SIGKILL among them if it takes too long."""
        assert self._latest is not None
        self._latest.join(timeout)
        self._latest.kill()
        self._latest.join()
        assert self._latest.exitcode is not None
        return self._latest.exitcode


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])))
