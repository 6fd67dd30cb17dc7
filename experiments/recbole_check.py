"""RecBole's models as backbones, checked against RecBole itself in environments of their own.

    python experiments/recbole_check.py                      # makes the environments, runs the checks
    python experiments/recbole_check.py --numpy 2 --json experiments/results/recbole.json

RecBole's own pipeline (its `Config`, data sets and loaders) runs on numpy 1 and pandas 2.0, its models alone
on today's. So there are two environments: VENV with numpy 1, where models are compared with that pipeline,
and VENV-numpy2 with this project's pins, where RecBole sits beside it as a user would have it. What is
checked is in tests/recbole/check_recbole.py; this prints the table of models that it leaves behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECBOLE = "recbole==1.2.1"
# What the project needs to train, and what RecBole's models and pipeline really import of all they declare.
NEEDED = [
    *("torch", "lightning", "torch-geometric", "torchmetrics", "polars", "jsonargparse[signatures]"),
    *("pyyaml", "safetensors", "rich", "pytest"),
    *("scipy", "scikit-learn", "tqdm", "psutil"),
    *("colorlog==4.7.2", "colorama==0.4.4", "texttable==1.7.0", "tensorboard==2.21.0"),
]
PINS = {"1": ["numpy==1.26.4", "pandas==2.0.3"], "2": ["numpy>=2", "pandas==3.1.1"]}


def main() -> int:
    args = _arguments()
    tables = []
    failed = 0
    for numpy in args.numpy:
        venv = args.venv if numpy == "1" else args.venv.with_name(f"{args.venv.name}-numpy2")
        python = _environment(venv, numpy, args.python)
        _install_project(python)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "table.json"
            done = subprocess.run(
                [
                    *(str(python), "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider"),
                    *(str(ROOT / "tests" / "recbole" / "check_recbole.py"), *args.pytest),
                ],
                env={**os.environ, "RECBOLE_TABLE": str(report), "PYTHONPATH": ""},
                cwd=folder,
                check=False,
            )
            failed |= done.returncode
            if report.is_file():
                tables.append(json.loads(report.read_text()))
    for table in tables:
        _show(table)
    if args.json:
        told = {
            "what": "RecBole's models as backbones",
            "machine": platform.machine(),
            "environments": tables,
        }
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    return failed


def _environment(venv: Path, numpy: str, base: str) -> Path:
    """A virtual environment with everything but the project; made anew where its list has changed."""
    python = venv / "bin" / "python"
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    if numpy == "1":
        pins = [pin for pin in pins if not pin.startswith("numpy==")]
    wanted = [*NEEDED, *PINS[numpy]]
    mark = venv / "made-by-recbole-check"
    value = hashlib.sha256("\n".join([*wanted, *pins, RECBOLE]).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == value:
        return python
    if venv.exists() and not mark.is_file():
        sys.exit(f"{venv} is there and not made by this script; name another folder with --venv")
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
    """From a copy: pip leaves its build files in the folder that it builds from."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "llm4sbr"
        skip = shutil.ignore_patterns(
            ".*", "build", "*.egg-info", "__pycache__", "experiments", "tests", "runs"
        )
        shutil.copytree(ROOT, source, symlinks=True, ignore=skip)
        subprocess.run(
            [
                *(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"),
                *("--no-build-isolation", "--force-reinstall", str(source)),
            ],
            check=True,
        )


def _show(table: dict[str, object]) -> None:
    print(f"\nWith {table['versions']}:\n")
    rows = table["models"]
    assert isinstance(rows, list)
    names = ["model", "scores", "contract", "bare loss", "wrapped loss"]
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row.get(name, "")) for name in names) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=Path("/root/recbole-venv"), help="where it is made")
    parser.add_argument(
        "--numpy", nargs="+", choices=sorted(PINS), default=sorted(PINS), help="which of the two"
    )
    parser.add_argument("--python", default=sys.executable, help="Python 3.11 that makes them")
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="the rest goes to pytest")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
