"""Run the golden runs in a process of their own, with settings under which bits depend least on the machine.

``python tests/golden/golden_runs.py --write`` replaces ``golden.json``. Use it only for an intended change of
numbers: a refactoring must pass without it. ``--out FILE`` writes to another file, as the test does.

Under `PORTABLE` the bits stay the same when MKL and libm are kept from AVX2, FMA and AVX512. Without it the
numbers are up to 1e-5 away from one vector width to another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels: the code path without AVX
    "MKL_CBWR": "COMPATIBLE",  # matrix products: the branch that every x86-64 processor has
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def run(out: Path) -> None:
    """Run all and write what is kept to `out`; the child's output goes to ours."""
    helpers = os.pathsep.join(filter(None, (str(HERE.parent / "helpers"), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **PORTABLE, "PYTHONPATH": helpers}
    subprocess.run([sys.executable, str(HERE / "all_runs.py"), str(out)], env=environment, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--write", action="store_true", help="replace the kept numbers")
    where.add_argument("--out", type=Path, help="write to this file")
    given = parser.parse_args()
    run(GOLDEN if given.write else given.out.resolve())
