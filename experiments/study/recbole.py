"""Check of RecBole's models as backbones against RecBole itself, in separate environments."""

from __future__ import annotations

import hashlib
import json as text
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.results import save
from llm4sbr.contracts.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
RECBOLE = "recbole==1.2.1"
# Requirements of training, and the requirements of RecBole that its models and pipeline really import.
NEEDED = [
    *("torch", "lightning", "torch-geometric", "torchmetrics", "polars", "jsonargparse[signatures]"),
    *("pyyaml", "safetensors", "rich", "pytest"),
    *("scipy", "scikit-learn", "tqdm", "psutil"),
    *("colorlog==4.7.2", "colorama==0.4.4", "texttable==1.7.0", "tensorboard==2.21.0"),
]
PINS = {"1": ["numpy==1.26.4", "pandas==2.0.3"], "2": ["numpy>=2", "pandas==3.1.1"]}


def recbole(
    venv: Path = Path("/root/recbole-venv"),
    numpy: list[str] | None = None,
    python: str = sys.executable,
    json: Path | None = None,
    pytest: list[str] | None = None,
) -> int:
    """Check RecBole's models as backbones against RecBole itself, in environments made for the check.

    RecBole's own pipeline (its `Config`, data sets and loaders) needs numpy 1 and pandas 2.0; its models
    alone run on current versions. So there are two environments: VENV with numpy 1 compares the models with
    that pipeline, and VENV-numpy2 has RecBole beside this project's pinned versions, as on a user's machine.
    The checks are in tests/adapters/check_recbole.py; this command prints the resulting table of models.

    Example::

        python -m experiments recbole --numpy '["2"]' --json experiments/results/recbole.json

    Args:
        venv: Folder of the environments.
        numpy: Environments to check, "1" and "2"; both by default.
        python: Python 3.11 interpreter that creates them.
        json: File for the table.
        pytest: Additional arguments for pytest.
    """
    tables, failed = [], 0
    for major in numpy or sorted(PINS):
        if major not in PINS:
            raise InputError("numpy is 1 or 2", value=major)
        place = venv if major == "1" else venv.with_name(f"{venv.name}-numpy2")
        made = _environment(place, major, python)
        _install_project(made)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "table.json"
            check = str(ROOT / "tests" / "adapters" / "check_recbole.py")
            words = [str(made), "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", check]
            done = subprocess.run(
                [*words, *(pytest or ())],
                env={**os.environ, "RECBOLE_TABLE": str(report), "PYTHONPATH": ""},
                cwd=folder,
                check=False,
            )
            failed |= done.returncode
            if report.is_file():
                tables.append(text.loads(report.read_text()))
    for table in tables:
        _show(table)
    if json:
        what = {"what": "RecBole's models as backbones", "machine": platform.machine()}
        save(json, {**what, "environments": tables})
    return failed


def _environment(venv: Path, numpy: str, base: str) -> Path:
    """Create a virtual environment with all requirements; it is rebuilt if they have changed."""
    python = venv / "bin" / "python"
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    own = {"colorlog", *(["numpy"] if numpy == "1" else [])}  # packages that RecBole pins to other versions
    pins = [pin for pin in pins if pin.split("==")[0] not in own]
    wanted = [*NEEDED, *PINS[numpy]]
    mark = venv / "made-by-recbole-check"
    value = hashlib.sha256("\n".join([*wanted, *pins, RECBOLE]).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == value:
        return python
    if venv.exists() and not mark.is_file():
        raise InputError(
            "this folder exists, but this command did not create it", path=venv, hint="Give another --venv"
        )
    shutil.rmtree(venv, ignore_errors=True)
    print(f"Making {venv}", flush=True)
    venv.mkdir(parents=True)
    mark.write_text("unfinished")
    subprocess.run([base, "-m", "venv", str(venv)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins) + "\n")
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", str(constraints), "setuptools>=77", *wanted], check=True)
        subprocess.run([*pip, "--no-deps", RECBOLE], check=True)
    mark.write_text(value)
    return python


def _install_project(python: Path) -> None:
    """Install the project from a copy, since pip leaves build files in the source folder."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "llm4sbr"
        skip = shutil.ignore_patterns(
            ".*", "build", "*.egg-info", "__pycache__", "experiments", "tests", "runs"
        )
        shutil.copytree(ROOT, source, symlinks=True, ignore=skip)
        words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*words, "--no-build-isolation", "--force-reinstall", str(source)], check=True)


def _show(table: dict[str, object]) -> None:
    print(f"\nWith {table['versions']}:\n")
    rows = table["models"]
    assert isinstance(rows, list)
    names = ["model", "scores", "contract", "bare loss", "wrapped loss"]
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row.get(name, "")) for name in names) + " |")
