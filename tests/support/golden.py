"""Whole outputs kept beside the tests. `UPDATE_GOLDENS=1 pytest …` writes them anew; then read the diff."""

from __future__ import annotations

import os
from pathlib import Path


def check_golden(path: Path, text: str) -> None:
    """That the text is what the file says."""
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing; make it with UPDATE_GOLDENS=1"
    assert text == path.read_text()
