"""Serving: over HTTP a bundle decides as it does locally, refuses what is wrong, and survives its replica."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import ray
from click.testing import CliRunner

from sentio_rllib import __version__
from sentio_rllib.deploy.bundle import write_bundle
from sentio_rllib.deploy.live import Portfolio, TradingPolicy
from sentio_rllib.errors import CheckpointError, ConfigError, SentioError
from sentio_rllib.market.checks import iso_minute
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from tests.deploy.replay import SMALL, bar_at, busy_network, small_bars

with warnings.catch_warnings():  # Serve declares its own fields in a way that this pydantic calls deprecated
    warnings.filterwarnings("ignore", "Using extra keyword arguments on `Field`", DeprecationWarning)
    from ray import serve
    from ray.serve.scripts import cli

    from sentio_rllib.deploy import serve as serving

SPEC = PolicySpec(variant="enhanced-maskable", **SMALL)
RULES = TradingRules(masks="risk", episode_length=100)
NEEDED = 390 + SPEC.receptive_field
FLAT = {"cash": 100_000.0, "shares": 0.0}
NAMES = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def bars() -> Bars:
    return small_bars()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose evidence did not support it."""
    place, network = tmp_path_factory.mktemp("models") / "m", busy_network(SPEC)
    write_bundle(
        place,
        "m",
        network.state_dict(),
        SPEC,
        network.members,
        RULES,
        market={"calendar": "XNYS", "hours": "regular", "session_minutes": 390},
        metadata={"evidence": {"verdict": "not supported", "reasons": ["it is random"]}},
    )
    return place


def json_bar(bars: Bars, index: int, **changes: Any) -> dict[str, Any]:
    """A bar as a client sends it; every other one is stamped by text."""
    stamp = int(bars.timestamp[index])
    told: int | str = stamp if index % 2 else datetime.fromtimestamp(stamp // 10**9, UTC).isoformat()
    return {"timestamp": told} | {name: float(getattr(bars, name)[index]) for name in NAMES} | changes


def ask(port: int, route: str, body: object = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    """Send a request, as a POST where there is a body; return the status and the JSON that came back."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # loopback
        f"http://127.0.0.1:{port}{route}", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Pair:
    """The application on a port, and a local policy that is given all that the application accepts."""

    def __init__(self, port: int, folder: Path, state: Path, bars: Bars) -> None:
        self.port, self.state, self.bars = port, state, bars
        self.local = TradingPolicy.load(folder)
        self.health_at_first = self.get("/health")
        self.decision_at_first = ask(port, "/decisions", FLAT)
        self.next = 0
        self.send(NEEDED + 100)

    def get(self, route: str) -> dict[str, Any]:
        status, answer = ask(self.port, route)
        assert status == 200
        return dict(answer)

    def send(self, count: int) -> dict[str, Any]:
        """Send the next bars: one alone, more of them as a list."""
        indices = range(self.next, self.next + count)
        sent = [json_bar(self.bars, index) for index in indices]
        status, answer = ask(self.port, "/bars", sent[0] if count == 1 else sent)
        assert (status, answer["taken"]) == (200, count)
        self.taken(count)
        return dict(answer)

    def taken(self, count: int = 1) -> None:
        """Give the next bars to the local policy."""
        for _ in range(count):
            self.local.update(bar_at(self.bars, self.next))
            self.next += 1

    def send_until_due(self) -> None:
        while not self.send(1)["decision_due"]:
            pass

    def kept(self) -> bytes:
        return self.state.read_bytes()


@pytest.fixture(scope="module")
def pair(ray_cluster: None, folder: Path, bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = tmp_path_factory.mktemp("states") / "m.npz"
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serving.build(folder, state))
    yield Pair(port, folder, state, bars)
    serve.shutdown()


# --- over HTTP ---------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_without_history_it_says_how_much_is_needed(pair: Pair) -> None:
    told = pair.health_at_first
    assert (told["status"], told["bundle"], told["verdict"], told["made_by"]) == (
        "ok",
        "m",
        "not supported",
        __version__,
    )
    assert told["versions"]["ray"] == ray.__version__
    assert (told["bars_seen"], told["bars_needed"], told["is_ready"], told["last_bar"]) == (0, NEEDED, False, None)
    status, answer = pair.decision_at_first
    assert status == 409
    assert answer["detail"] == [
        f"not ready: {NEEDED} bars are needed and 0 were seen; pass history to warm_up, or go on with update"
    ]


@pytest.mark.ray
def test_bars_and_decisions_are_those_of_a_local_policy(pair: Pair) -> None:
    actions = set()
    for _ in range(6):
        pair.send_until_due()
        shares = 100.0 * (len(actions) % 2)
        portfolio = Portfolio(60_000.0, shares, 300.0 if shares else None)
        status, answer = ask(pair.port, "/decisions", vars(portfolio))
        decision = pair.local.decide(portfolio)
        assert status == 200
        assert answer.pop("bar") == iso_minute(int(pair.bars.timestamp[pair.next - 1]))
        wanted = {name: value for name, value in vars(decision).items() if name != "timestamp"}
        assert answer.keys() == wanted.keys()
        for name, value in wanted.items():
            assert answer[name] == (value.tolist() if isinstance(value, np.ndarray) else value), name
        actions.add(answer["name"])
    assert len(actions) > 1
    told, local = pair.get("/health"), pair.local
    names = ("bars_seen", "is_ready", "decision_due", "stop_reached", "minutes_left")
    assert {name: told[name] for name in names} == {name: getattr(local, name) for name in names}
    assert told["last_bar"] == iso_minute(int(pair.bars.timestamp[pair.next - 1]))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("changes", "status", "match"),
    [
        ({"timestamp": "last"}, 409, "was there already"),
        ({"timestamp": "2020-01-02T14:30Z"}, 409, "comes late or out of order"),
        ({"timestamp": "2022-01-01T15:00Z"}, 409, "outside the sessions of XNYS"),
        ({"timestamp": "2022-01-03T15:00"}, 422, r"body\[0\]\.timestamp: .*carries no time zone"),
        ({"timestamp": "2022-01-03T15:00:30Z"}, 422, "on no full minute"),
        ({"timestamp": "soon"}, 422, "'soon' is no stamp: pass ISO 8601"),
        ({"timestamp": 1.6e18}, 422, r"valid integer \(got 1\.6e\+18\)"),
        ({"timestamp": True}, 422, "valid integer"),
        ({"timestamp": 1_700_000_000}, 422, "outside the years"),
        ({"close": float("nan")}, 422, r"body\[0\]\.close: .*finite number \(got nan\)"),
        ({"open": float("inf")}, 422, r"body\[0\]\.open: .*\(got inf\)"),
        ({"high": "300"}, 422, r"body\[0\]\.high: .*valid number \(got '300'\)"),
        ({"volume": True}, 422, r"body\[0\]\.volume"),
        ({"volume": 10**400}, 422, r"body\[0\]\.volume"),
        ({"low": 0.0}, 422, "a price is not positive"),
        ({"high": 1.0, "open": 1.0}, 422, "high < low"),
        ({"vwap": 300.0}, 422, r"body\[0\]\.vwap: Extra inputs are not permitted"),
        ({"x\n" * 99: 1.0}, 422, r"^body\[0\]\['x\\nx.{0,60}\.\.\.\]: Extra inputs"),
        ({"\ud800": 1.0}, 422, r"^body\[0\]: .*unable to parse"),
    ],
)
def test_bars_that_are_refused_leave_no_trace(pair: Pair, changes: dict[str, Any], status: int, match: str) -> None:
    if changes.get("timestamp") == "last":
        changes = {"timestamp": int(pair.bars.timestamp[pair.next - 1])}
    before = pair.get("/health"), pair.kept()
    bad = json_bar(pair.bars, pair.next, **changes)
    found, answer = ask(pair.port, "/bars", bad)
    assert found == status
    assert len(answer["detail"]) == 1
    assert re.search(match, answer["detail"][0])
    assert before == (pair.get("/health"), pair.kept())


@pytest.mark.ray
def test_a_list_is_taken_whole_or_not_at_all(pair: Pair) -> None:
    before = pair.get("/health"), pair.kept()
    good = [json_bar(pair.bars, pair.next + step) for step in range(3)]
    for bad, status in ((good[:2] + good[:1], 409), ([*good, json_bar(pair.bars, pair.next + 3, low=0.0)], 422)):
        assert ask(pair.port, "/bars", bad)[0] == status
        assert before == (pair.get("/health"), pair.kept())
    assert pair.send(3)["bars_seen"] == before[0]["bars_seen"] + 3


@pytest.mark.ray
def test_a_body_that_is_none_is_refused_in_few_words(pair: Pair) -> None:
    before = pair.get("/health"), pair.kept()
    for route in ("/bars", "/decisions"):
        for raw in (b"", b"{", b"[]", b"7", b"null", b"\xff", b"[" * 100_000, b"[" + b"{}," * 100 + b"{}]"):
            status, answer = ask(pair.port, route, raw=raw)
            assert status in {400, 422}
            assert len(json.dumps(answer)) < 3_000
            assert "Traceback" not in str(answer)
    status, answer = ask(pair.port, "/bars", [json_bar(pair.bars, pair.next)] * (serving.MAX_BARS + 1))
    assert (status, len(answer["detail"])) == (422, 1)
    assert "at most 10000 items" in answer["detail"][0]
    status, answer = ask(pair.port, "/bars", {f"key{number}": number for number in range(1_000)})
    assert (status, answer["detail"][-1]) == (422, "and 986 more")  # six keys are missing as well
    assert ask(pair.port, "/orders", {})[0] == 404
    assert before == (pair.get("/health"), pair.kept())


@pytest.mark.ray
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cash": float("nan")}, r"body\.cash: .*finite"),
        ({"cash": "100"}, r"body\.cash: .*valid number"),
        ({"shares": -1.0}, r"body\.shares: .*greater than or equal to 0 \(got -1\.0\)"),
        ({"shares": float("inf")}, r"body\.shares: .*finite"),
        ({"entry_price": 0.0}, r"body\.entry_price: .*greater than 0"),
        ({"off_phase": "yes"}, r"body\.off_phase: .*valid boolean"),
        ({"margin": 1.0}, r"body\.margin: Extra"),
    ],
)
def test_accounts_that_are_none(pair: Pair, changes: dict[str, Any], match: str) -> None:
    status, answer = ask(pair.port, "/decisions", FLAT | changes)
    assert status == 422
    assert len(answer["detail"]) == 1
    assert re.match(match, answer["detail"][0])


@pytest.mark.ray
def test_an_account_worth_nothing_and_a_decision_that_is_not_due_are_refused(pair: Pair) -> None:
    pair.send_until_due()
    before = pair.kept()
    status, answer = ask(pair.port, "/decisions", {"cash": 0.0, "shares": 0.0})
    assert (status, "worth more than 0" in answer["detail"][0]) == (409, True)
    pair.send(1)
    status, answer = ask(pair.port, "/decisions", FLAT)
    assert (status, "no decision is due" in answer["detail"][0]) == (409, True)
    status, answer = ask(pair.port, "/decisions", FLAT | {"off_phase": True})
    decision = pair.local.decide(Portfolio(**FLAT), off_phase=True)
    assert (status, answer["probabilities"]) == (200, decision.probabilities.tolist())
    assert pair.kept() != before


@pytest.mark.ray
def test_requests_at_once_are_worked_on_one_by_one(pair: Pair) -> None:
    seen = pair.get("/health")["bars_seen"]
    with ThreadPoolExecutor(8) as pool:
        sent = [json_bar(pair.bars, pair.next)] * 8
        statuses = sorted(status for status, _ in pool.map(lambda body: ask(pair.port, "/bars", body), sent))
    assert statuses == [200] + [409] * 7
    pair.taken()
    assert pair.get("/health")["bars_seen"] == seen + 1


@pytest.mark.ray
def test_a_state_that_cannot_be_written_is_told_and_made_good(pair: Pair) -> None:
    aside = pair.state.parent.rename(pair.state.parent.with_name("aside"))
    status, answer = ask(pair.port, "/bars", json_bar(pair.bars, pair.next))
    assert status == 500
    assert re.search(
        r"m\.npz: the state could not be written \(No such file.*do not send them again", answer["detail"][0]
    )
    pair.taken()
    aside.rename(pair.state.parent)
    pair.send(1)
    restored = TradingPolicy(pair.local.bundle)
    restored.load_state(pair.state)
    assert restored.last_bar == pair.local.last_bar


@pytest.mark.ray
def test_a_replica_that_died_goes_on_where_it_was(pair: Pair) -> None:
    pair.send_until_due()
    assert ask(pair.port, "/decisions", FLAT)[0] == 200
    pair.local.decide(Portfolio(**FLAT))
    before = pair.get("/health")
    replica = next(each for each in ray.util.list_named_actors(all_namespaces=True) if "#policy#" in each["name"])
    ray.kill(ray.get_actor(replica["name"], replica["namespace"]))
    deadline = time.monotonic() + 60
    while True:
        try:
            status, after = ask(pair.port, "/health")
        except (OSError, ValueError):
            status = None
        if status == 200:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert after | {"bars_seen": 0} == before | {"bars_seen": 0}
    for _ in range(2):
        pair.send_until_due()
        answer = ask(pair.port, "/decisions", FLAT)[1]
        decision = pair.local.decide(Portfolio(**FLAT))
        assert answer["action"] == decision.action
        np.testing.assert_allclose(answer["probabilities"], decision.probabilities, atol=1e-6)  # read anew


# --- what is served ----------------------------------------------------------------------------------------------


def test_the_bundle_comes_from_arguments_or_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SENTIO_BUNDLE", "SENTIO_STATE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(click.UsageError, match=r"no bundle: pass bundle=models/NAME, or set SENTIO_BUNDLE"):
        serving.app({})
    with pytest.raises(click.UsageError, match=r"model: no argument .* takes bundle=FOLDER and state=FILE"):
        serving.app({"model": "m"})
    monkeypatch.setenv("SENTIO_BUNDLE", str(tmp_path / "none"))
    with pytest.raises(click.UsageError, match=r"none: manifest\.json is missing"):
        serving.app({})
    assert isinstance(serving.app({"bundle": str(folder)}), serve.Application)
    monkeypatch.setenv("SENTIO_BUNDLE", folder.name)
    monkeypatch.setenv("SENTIO_STATE", str(tmp_path / "none" / "m.npz"))
    monkeypatch.chdir(folder.parent)
    with pytest.raises(click.UsageError, match=r"state: .*none is no folder"):
        serving.app({})
    monkeypatch.setenv("SENTIO_STATE", "")
    assert isinstance(serving.app({}), serve.Application)


def test_the_command_line_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["run", "sentio_rllib.deploy.serve:app", f"bundle={tmp_path / 'none'}"])
    assert result.exit_code == 2
    mistakes = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"Error: {tmp_path / 'none'}: manifest.json is missing")
    assert "Traceback" not in result.output


def test_a_state_that_does_not_fit_is_refused_before_anything_is_deployed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no state of a policy can be read"):
        serving.build(folder, tmp_path / "damaged.npz")
    with pytest.raises(CheckpointError, match="no state of a policy can be read"):
        serving.build(folder, tmp_path)
    with pytest.raises(ConfigError, match="none is no folder"):
        serving.build(folder, tmp_path / "none" / "m.npz")


@pytest.mark.parametrize("missing", ["fastapi", "ray.serve"])
def test_without_the_extra_it_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "ray.serve":
        monkeypatch.delattr(ray, "serve")
    assert serving.__file__ is not None
    spec = importlib.util.spec_from_file_location("without_the_extra", serving.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'sentio_rllib\[serve\]'") as caught:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert isinstance(caught.value, SentioError)
    assert len(caught.value.lines) == 1
