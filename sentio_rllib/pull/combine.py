"""How the members of a bundle are chosen: ``refit``, ``mean`` or ``best``; or trained once more, ``final``."""

from typing import Literal

Combine = Literal["mean", "best", "refit"]
FINAL = "final"
"""The champion's configuration, trained on all bars after its verdict."""
