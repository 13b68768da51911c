"""From checkpoint to decisions: bundles, their ONNX export, live decisions. Imports no Ray."""

from __future__ import annotations

from sentio_rllib.deploy.bundle import Bundle, load_bundle
from sentio_rllib.deploy.live import Bar, Decision, Portfolio, TradingPolicy

__all__ = ["Bar", "Bundle", "Decision", "Portfolio", "TradingPolicy", "load_bundle"]
