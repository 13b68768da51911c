"""Sentio: distributed hyperparameter sweeps for PPO trading agents on minute bars."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__", "register"]


def register() -> None:
    """Register the environment ``sentio/Trading-v0`` with gymnasium and RLlib."""
    from sentio_rllib.trading.environment import register as register_environment  # noqa: PLC0415  # imports torch

    register_environment()
