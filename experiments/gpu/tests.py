"""Job 1: the tests that need a GPU, all of which must pass.

It writes ``tests.json``: how many there are, which failed or were skipped, and why.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

from place import HERE, card, parser, say, write_json

CHECKOUT = HERE.parents[1]


def main() -> int:
    """Run it; returns the exit status."""
    options = parser(__doc__)
    options.add_argument("--allow_skips", action="store_true", help="without a GPU all are skipped")
    args = options.parse_args()
    paths = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tests").rglob("test_cuda.py"))
    report = args.work / "junit.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *paths]
    try:
        subprocess.run(command, cwd=CHECKOUT, timeout=60 * args.minutes, check=False)
    except subprocess.TimeoutExpired:
        raise SystemExit("the tests did not end in time") from None
    cases = list(ET.parse(report).iter("testcase"))
    found: dict[str, dict[str, str]] = {"failure": {}, "error": {}, "skipped": {}}
    for case in cases:
        for kind, named in found.items():
            if (entry := case.find(kind)) is not None:
                named[f"{case.get('classname')}::{case.get('name')}"] = entry.get("message") or ""
    failed = {**found["failure"], **found["error"]}
    passed = len(cases) - len(failed) - len(found["skipped"])
    summary = {"files": paths, "card": card(), "tests": len(cases), "passed": passed}
    write_json(args.work / "tests.json", {**summary, "failed": failed, "skipped": found["skipped"]})
    say(f"{passed} of {len(cases)} passed, {len(failed)} failed, {len(found['skipped'])} skipped")
    return int(not cases or bool(failed) or bool(found["skipped"] and not args.allow_skips))


if __name__ == "__main__":
    sys.exit(main())
