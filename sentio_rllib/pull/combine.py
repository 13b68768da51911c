"""How the members of a bundle are chosen: ``refit``, ``mean`` or ``best``."""

from typing import Literal

Combine = Literal["mean", "best", "refit"]
