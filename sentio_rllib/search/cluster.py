"""The Ray that trials run on: one of our own, or one that is joined, and what it holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError

_PROBE_SECONDS = 5.0


@contextmanager
def cluster(address: str | None) -> Iterator[str]:
    """Join a Ray, or start a local one and leave none behind; yields the dashboard's URL.

    A Ray that this process has initialised already is used, and left running.

    Raises
    ------
    SweepError
        If no Ray answers at `address`.
    """
    if ray.is_initialized():
        yield ""
        return
    address = address or os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {"dashboard_host": "127.0.0.1", "include_dashboard": True}
    try:
        _probe(address)
        context = ray.init(  # without an address Ray would join whatever runs on this machine
            address=address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else local)
        )
    except ConnectionError as error:
        raise SweepError(f"--address {address}: no Ray answers there; start one with ray start --head") from error
    try:
        yield str(context.dashboard_url or "")
    finally:
        ray.shutdown()


def _probe(address: str | None) -> None:
    """Raise ConnectionError where nothing listens at host:port; Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def check_resources(config: SweepConfig) -> None:
    """Refuse a trial that the cluster can never place; Tune would wait for ever.

    Raises
    ------
    SweepError
        One line for each resource, with what a trial asks for and what the cluster holds.
    """
    held = ray.cluster_resources()
    asked = {"cpu": config.resources.cpu, "gpu": config.resources.gpu}
    lines = [
        f"resources.{key}: a trial asks for {amount:g}, the cluster has {held.get(key.upper(), 0):g}; lower it"
        for key, amount in asked.items()
        if amount > held.get(key.upper(), 0)
    ]
    if lines:
        raise SweepError(*lines)


@contextmanager
def local_ray() -> Iterator[None]:
    """Have a Ray of this process alone where there is none; an algorithm is not built without."""
    if ray.is_initialized():
        yield
        return
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
