"""What the commands of all rooms share on the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class OneLineParser(argparse.ArgumentParser):
    """Tells a wrong option in one line, without the usage, and exits 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def local_path(text: str) -> Path:
    """Return a path of this machine's file systems, a leading ``~`` taken as the home folder.

    Raises
    ------
    argparse.ArgumentTypeError
        `text` is a URI, or names the home folder of a user who has none.
    """
    reason = not_local(text)
    if reason:
        raise argparse.ArgumentTypeError(f"{text!r} {reason}")
    return Path(at_home(text))


def at_home(text: str) -> str:
    """Return `text` with a leading ``~`` replaced by the home folder, where there is one."""
    if not text.startswith("~") or not_local(text):
        return text
    return str(Path(text).expanduser())


def not_local(text: str) -> str | None:
    """Return why `text` is no path of this machine's file systems, and the way out; None where it is one."""
    if _URI.match(text):
        return "is a URI, which cannot be read or written yet; mount it, or name a local copy"
    try:
        if text.startswith("~"):
            Path(text).expanduser()
    except RuntimeError:
        return "begins with the home folder of a user who has none; write the whole path"
    return None
