"""The golden runs: small fixed trainings whose numbers are kept to the last bit in ``golden.json``.

On the processor and torch version that wrote the file every bit must be the same. On others bits are compared
first, too; where they differ, numbers must be near and a warning names both machines. With
``LLM4SBR_GOLDEN=exact`` bits must be the same on every machine. For an intended change of numbers, run
``python tests/golden/golden_runs.py --write``.
"""

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KEPT = json.loads((HERE / "golden.json").read_text())
TOLERANCE = 1e-4  # torch's AVX2 and AVX512 paths are less than 1e-5 away from the portable one


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the runs give now, in a process of their own."""
    out = tmp_path_factory.mktemp("golden") / "found.json"
    script = [sys.executable, str(HERE / "golden_runs.py"), "--out", str(out)]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return json.loads(out.read_text())


def differences(kept, now, near=0.0, place=""):
    """A line for each value that is another one.

    Args:
        kept: Values of the file.
        now: Values of today.
        near: Distance that is allowed between floats; above 0 digests are not compared.
        place: Where the values are.
    """
    if isinstance(kept, dict) and isinstance(now, dict):
        lines = [f"{place}/{key}: only in one of both" for key in sorted(kept.keys() ^ now.keys())]
        for key in sorted(kept.keys() & now.keys()):
            lines += differences(kept[key], now[key], near, f"{place}/{key}")
        return lines
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        pairs = enumerate(zip(kept, now, strict=True))
        return [line for at, (a, b) in pairs for line in differences(a, b, near, f"{place}[{at}]")]
    if kept == now or (near and place.endswith("sha256")):
        return []
    if not (_is_float(kept) and _is_float(now)):
        return [f"{place}: {kept} was kept, {now} is"]
    distance = abs(float.fromhex(kept) - float.fromhex(now))
    scale = max(1.0, abs(float.fromhex(kept)))
    if near and distance <= near * scale:
        return []
    return [f"{place}: {kept} was kept, {now} is: {distance:.3g} away"]


def _is_float(value):
    return isinstance(value, str) and "0x" in value[:3]


def as_kept(found, *path):
    """Assert that one part is what is kept, to the last bit where the machine is the same."""
    kept, now = KEPT, found
    for key in path:
        kept, now = kept[key], now[key]
    where = "/".join(path)
    told = differences(kept, now, place=where)
    if not told:
        return
    if KEPT["machine"] == found["machine"] or os.environ.get("LLM4SBR_GOLDEN") == "exact":
        pytest.fail(f"{where}: {len(told)} values are not as kept\n" + "\n".join(told[:20]), pytrace=False)
    far = differences(kept, now, TOLERANCE, where)
    assert not far, f"{where}: {len(far)} values are far from what is kept\n" + "\n".join(far[:20])
    warnings.warn(
        f"{where}: {len(told)} values differ in their last bits; all are within {TOLERANCE} of what is kept. "
        f"Kept on {KEPT['machine']}, run on {found['machine']}",
        stacklevel=2,
    )


def test_every_part_is_kept(found):
    assert found.keys() == KEPT.keys()
    for part in ("runs", "resumed", "again", "command line"):
        assert found[part].keys() == KEPT[part].keys()


@pytest.mark.parametrize("part", KEPT["views"])
def test_views(found, part):
    as_kept(found, "views", part)


@pytest.mark.parametrize("name", KEPT["runs"])
def test_run_has_the_same_parts(found, name):
    assert found["runs"][name].keys() == KEPT["runs"][name].keys()


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, run in KEPT["runs"].items() for what in run]
)
def test_run(found, name, what):
    """Weights as the constructors draw them (``initial weights``), and all that follows from hashed weights.

    Seen to fail with tau 1e-7 larger (wrapped runs with views), with a residual fusion 2e-7 longer (its runs
    alone), with the prior of repeats 1e-6 larger (runs with that head), with a cosine one step longer, with
    titles cut in prompts (runs with the LLM's views) and with another seed. A random number drawn before the
    wrapper's own weights changes their initial weights alone.
    """
    as_kept(found, "runs", name, what)


@pytest.mark.parametrize("name", KEPT["resumed"])
def test_an_interrupted_run_ends_as_the_whole_one(found, name):
    """Seen to fail, for every run with dropout or bucket, with random numbers that are not restored."""
    resumed, whole = found["resumed"][name], found["runs"][name]
    assert resumed["weights sha256"] == whole["weights sha256"]
    for number, values in resumed["logged"].items():
        assert values == whole["logged"][number][-len(values) :], number
    assert len(resumed["logged"]["train/loss"]) == 2  # of the second epoch and the third


@pytest.mark.parametrize("name", KEPT["again"])
def test_a_second_run_is_the_first(found, name):
    assert not differences(found["again"][name], found["runs"][name])


@pytest.mark.parametrize("name", KEPT["command line"])
def test_command_line(found, name):
    as_kept(found, "command line", name)


@pytest.mark.parametrize("name", [name for name in KEPT["command line"] if name.startswith("evaluate ")])
def test_the_command_line_says_what_python_says(found, name):
    said, run = found["command line"][name], found["runs"][name.removeprefix("evaluate ")]
    assert not differences(run["predictions"], said["predictions"])
    assert said["logged"] == {key: run["logged"][key] for key in run["logged"] if key.startswith("test/")}
    assert said["logged"]


def test_what_is_kept_can_tell_runs_apart():
    """No number is undefined, and no two runs are the same."""
    runs = KEPT["runs"].values()
    assert all(math.isfinite(float.fromhex(loss)) for run in runs for loss in run["logged"]["train/loss"])
    assert len({run["weights sha256"] for run in runs}) == len(runs)
