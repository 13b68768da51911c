"""Which Ray a sweep runs on: one of its own unless one is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sentio_rllib.search.cluster import cluster


@pytest.mark.parametrize(
    ("option", "environment", "joined"),
    [
        (None, None, "local"),
        (None, "auto", "auto"),
        ("ray://10.0.0.1", None, "ray://10.0.0.1"),
        ("ray://10.0.0.1", "auto", "ray://10.0.0.1"),
    ],
)
def test_no_ray_is_joined_that_was_not_named(
    option: str | None, environment: str | None, joined: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    ended: list[bool] = []

    def init(**named: Any) -> SimpleNamespace:
        asked.append(named)
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    with cluster(option) as dashboard:
        assert dashboard == "127.0.0.1:8265"
        assert not ended
    assert ended == [True]
    [named] = asked
    assert named["address"] == joined
    assert named.get("dashboard_host") == ("127.0.0.1" if joined == "local" else None), "of our own alone"
