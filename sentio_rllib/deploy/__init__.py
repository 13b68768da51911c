"""From a checkpoint to decisions, without Ray and without unpickling.

`bundle.py` writes and verifies the deployable folder, `export.py` holds the module that decides and writes it as
ONNX. `live.py` decides bar by bar, fed by `feed.py`, with the account of `account.py` and the encoder's `cache.py`;
`trades.py` walks blocks with a log of trades; `serve.py` answers over HTTP and alone imports Ray. May import `policy`
and what lies below it. Begin with `live.py` (:class:`TradingPolicy`).
"""

from __future__ import annotations

from sentio_rllib.deploy.bundle import Bundle, load_bundle
from sentio_rllib.deploy.live import Bar, Decision, Portfolio, TradingPolicy

__all__ = ["Bar", "Bundle", "Decision", "Portfolio", "TradingPolicy", "load_bundle"]
