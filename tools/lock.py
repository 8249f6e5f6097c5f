"""Resolves requirements/requirements.in into requirements/lock.txt, once for Python 3.10 to 3.12.

Runs `uv pip compile --universal` (uv is installed into a temporary environment for it) and leaves out what torch's own
metadata pins where its build needs it: the CUDA libraries. So the one lock serves torch's CPU build and its CUDA build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
CUDA = re.compile(r"^(nvidia-|cuda-|triton\b)")
HEADER = (
    "# Every package that `make setup` installs, for Python 3.10 to 3.12. Made from requirements.in by `make lock`.\n"
    "# The CUDA libraries are not listed: torch's own metadata pins them where its build needs them.\n"
)


def without_cuda(resolved: str) -> str:
    """Returns the `NAME==VERSION ; MARKER` lines of a resolution, comments and CUDA libraries left out."""
    lines = [line.strip() for line in resolved.splitlines()]
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#") and not CUDA.match(line))


def resolve(requirements: Path) -> str:
    """Returns what uv resolves `requirements` into, in requirements.txt format."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        command = [f"{folder}/bin/uv", "pip", "compile", "--universal", "--python-version", "3.10", "--quiet"]
        command += ["--no-header", "--no-annotate", "--upgrade", str(requirements)]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Writes the lock file."""
    lock = REQUIREMENTS / "lock.txt"
    lock.write_text(HEADER + without_cuda(resolve(REQUIREMENTS / "requirements.in")), encoding="utf-8")
    print(f"wrote {lock}")


if __name__ == "__main__":
    main()
