"""A bundle behind HTTP: the Ray Serve application ``sentio_rllib.deploy.serve:app``, with the extra ``serve``.

    serve run sentio_rllib.deploy.serve:app bundle=models/NAME state=NAME.npz
    SENTIO_BUNDLE=models/NAME SENTIO_STATE=NAME.npz serve run sentio_rllib.deploy.serve:app

``POST /bars``
    One finished bar, or a list in the order of time that is taken whole or not at all. A history is sent likewise,
    before the first live bar; the first bar at which the policy is ready starts its phase.
``POST /decisions``
    What the account holds after the last bar; answers what to do at the next open. A fill between two decisions is
    told with ``off_phase`` true, which reports the account too; leave what that answers aside.
``GET /health``
    What runs here, what the evidence said of it, and how far it is.

Refusals are JSON, ``{"detail": [line, ...]}``, and change nothing: 422 for what no market or account can be, 409 for
what the policy cannot take as it stands (a bar that is late or there already, a decision that is not due).

Bars have one order, so there is one replica, and a request is worked on to its end before the next begins. With a
state file a replica that is started again goes on where the last accepted request left it; without one it waits for
a history.

Ray Serve listens on 127.0.0.1:8000 unless a Serve config file or ``serve.start(http_options=...)`` says otherwise.
Nothing here knows who asks: whoever opens it to others puts a reverse proxy in front that does, and limits the size
and the time of a request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import click
import numpy as np
import ray
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from sentio_rllib import __version__
from sentio_rllib.deploy.feed import check_bar, nanoseconds, place
from sentio_rllib.deploy.live import Bar, Decision, Portfolio, TradingPolicy
from sentio_rllib.errors import BarsError, ConfigError, MissingExtraError, SentioError
from sentio_rllib.market.checks import iso_minute

try:
    from fastapi import Body, FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from ray import serve
except ImportError as error:
    raise MissingExtraError(
        f"sentio_rllib.deploy.serve needs Ray Serve ({error.msg}): pip install 'sentio_rllib[serve]'"
    ) from error

__all__ = ["app", "build"]

MAX_BARS: Final = 10_000
"""Bars in one request; more of them are sent in several."""

_VARIABLES: Final = {"bundle": "SENTIO_BUNDLE", "state": "SENTIO_STATE"}
_LINES: Final = 20
"""Lines of one refusal, so that its length does not depend on who asks."""
_LONG: Final = 60
"""Characters that a refusal repeats of what it was sent."""


def _brief(value: object, length: int = _LONG) -> str:
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value):,}"
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


def _instant(value: object) -> object:
    """Turn ISO 8601 into ns UTC and leave anything else to the field."""
    if not isinstance(value, str):
        return value
    try:
        return nanoseconds(datetime.fromisoformat(value))
    except BarsError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        wanted = "pass ISO 8601 with a zone, as 2025-04-01T13:30Z, or ns since 1970 in UTC"
        raise ValueError(f"{_brief(value)} is no stamp: {wanted}") from error


def _listed(value: object) -> object:
    """Take one bar for a list of one."""
    return [value] if isinstance(value, dict) else value


class _Asked(BaseModel):
    """What a request may hold: every key known, numbers that are numbers and finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class BarIn(_Asked):
    """One finished minute bar, by the rules of :class:`~sentio_rllib.deploy.live.Bar`."""

    timestamp: Annotated[int, BeforeValidator(_instant, json_schema_input_type=int | str)]
    open: float
    high: float
    low: float
    close: float
    volume: float

    @model_validator(mode="after")
    def _is_a_bar(self) -> BarIn:
        try:
            check_bar(self.bar())
        except BarsError as error:
            raise ValueError(str(error)) from error
        return self

    def bar(self) -> Bar:
        """Return it as the policy takes it."""
        return Bar(**self.model_dump())


BarsIn = Annotated[
    list[BarIn],
    FailFast(),  # the work for a request that is refused stays small
    Field(min_length=1, max_length=MAX_BARS),
    BeforeValidator(_listed, json_schema_input_type=BarIn | list[BarIn]),
    Body(),
]


class AccountIn(_Asked):
    """What the account holds after the last bar, by the rules of :class:`~sentio_rllib.deploy.live.Portfolio`."""

    cash: float
    shares: float = Field(ge=0.0)
    entry_price: float | None = Field(default=None, gt=0.0)
    off_phase: bool = False


class Standing(BaseModel):
    """How far the policy is; the names are those of :class:`~sentio_rllib.deploy.live.TradingPolicy`."""

    bars_seen: int
    bars_needed: int
    is_ready: bool
    decision_due: bool
    stop_reached: bool
    minutes_left: int
    last_bar: str | None


class BarsTaken(Standing):
    """Answer to bars: how many of them were taken, and how far the policy is now."""

    taken: int


class DecisionOut(BaseModel):
    """Answer to an account: :class:`~sentio_rllib.deploy.live.Decision`, with `bar` the minute it was made after."""

    action: int
    name: str
    executable: bool
    target_fraction: float
    stopped: bool
    probabilities: list[float]
    mask: list[bool]
    value: float
    quantiles: list[float] | None
    regime_weights: list[float] | None
    bar: str


class Health(Standing):
    """What runs: `verdict` is the evidence's of the bundle, ``none`` without; `made_by` the version that wrote it."""

    status: Literal["ok"] = "ok"
    bundle: str
    verdict: str
    made_by: str
    versions: dict[str, str]


api = FastAPI(title="sentio_rllib", version=__version__, docs_url=None, redoc_url=None)


def _refusal(status: int, lines: Sequence[str]) -> JSONResponse:
    shown = list(lines[:_LINES])
    if len(lines) > _LINES:
        shown.append(f"and {len(lines) - _LINES:,} more")
    return JSONResponse({"detail": shown}, status_code=status)


@api.exception_handler(RequestValidationError)
async def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:  # noqa: ARG001  # FastAPI's signature
    return _refusal(422, [_line(each) for each in error.errors()])


@api.exception_handler(SentioError)
async def _conflicting(request: Request, error: SentioError) -> JSONResponse:  # noqa: ARG001  # FastAPI's signature
    return _refusal(409, error.lines)


def _step(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isidentifier() and len(part) < _LONG else f"[{_brief(part)}]"


def _line(mistake: Mapping[str, Any]) -> str:
    """One mistake of pydantic's as ``body[3].close: ... (got nan)``."""
    where = "".join(_step(part) for part in mistake["loc"]).lstrip(".")
    if mistake["type"] == "value_error":
        return f"{where}: {mistake['ctx']['error']}"
    if mistake["type"] == "missing":  # the input is all that is there
        return f"{where}: {mistake['msg']}"
    return f"{where}: {mistake['msg']} (got {_brief(mistake['input'])})"


class _PolicyServer:
    """One live policy. Its handlers await nothing, so the replica's event loop runs them one after the other."""

    def __init__(self, bundle: str, state: str | None) -> None:
        self._policy = _policy(Path(bundle), None if state is None else Path(state))
        self._state = state

    @api.post("/bars")
    async def take(self, bars: BarsIn) -> BarsTaken:
        """Take finished bars, all of them or none."""
        policy = self._policy
        previous = None if policy.last_bar is None else int(policy.last_bar.astype(np.int64))
        for bar in bars:  # nothing else can be wrong with them: update then refuses none
            place(bar.timestamp, previous, policy.bundle.calendar, policy.bundle.hours)
            previous = bar.timestamp
        for bar in bars:
            policy.update(bar.bar())
        self._keep("the bars were taken: do not send them again")
        return BarsTaken(taken=len(bars), **self._standing())

    @api.post("/decisions")
    async def decide(self, account: AccountIn) -> DecisionOut:
        """Decide on the last bar."""
        portfolio = Portfolio(account.cash, account.shares, account.entry_price)
        decision = self._policy.decide(portfolio, off_phase=account.off_phase)
        self._keep("nothing is lost: ask again")
        return _told(decision)

    @api.get("/health")
    async def health(self) -> Health:
        """Say what runs here and how far it is."""
        metadata = self._policy.bundle.metadata
        return Health(
            bundle=self._policy.bundle.name,
            verdict=(metadata.get("evidence") or {}).get("verdict", "none"),
            made_by=metadata["versions"]["sentio_rllib"],
            versions={"sentio_rllib": __version__, "ray": ray.__version__, "torch": str(torch.__version__)},
            **self._standing(),
        )

    def _standing(self) -> dict[str, Any]:
        policy = self._policy
        names = ("bars_seen", "bars_needed", "is_ready", "decision_due", "stop_reached", "minutes_left")
        last = None if policy.last_bar is None else _minute(policy.last_bar)
        return {name: getattr(policy, name) for name in names} | {"last_bar": last}

    def _keep(self, otherwise: str) -> None:
        """Save the state; where that fails, say so: the next request that is accepted saves all of it."""
        if self._state is None:
            return
        try:
            self._policy.save_state(self._state)
        except OSError as error:
            line = f"{self._state}: the state could not be written ({error.strerror}); make room; {otherwise}"
            raise HTTPException(500, [line]) from error


_deployment = serve.deployment(name="policy", num_replicas=1)(serve.ingress(api)(_PolicyServer))


def _told(decision: Decision) -> DecisionOut:
    values = {name: _plain(value) for name, value in vars(decision).items() if name != "timestamp"}
    return DecisionOut(**values, bar=_minute(decision.timestamp))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _minute(stamp: np.datetime64) -> str:
    return iso_minute(int(stamp.astype(np.int64)))


def _policy(bundle: Path, state: Path | None) -> TradingPolicy:
    """Load a policy, and let it go on from its state where there is one."""
    policy = TradingPolicy.load(bundle)
    if state is not None and state.exists():
        policy.load_state(state)
    return policy


def build(bundle: str | Path, state: str | Path | None = None) -> serve.Application:
    """Return the application for a bundle, as ``serve.run`` takes it.

    All is loaded once before anything is deployed, so that a mistake is told here and not by a replica that
    cannot start.

    Parameters
    ----------
    bundle
        Folder of the bundle, readable wherever the replica may run.
    state
        File that the state is kept in; made if it is not there, gone on from if it is. None: keep none.

    Raises
    ------
    CheckpointError
        The bundle or the state is incomplete, altered, or made for something else.
    ConfigError
        The folder of the state is none.
    """
    folder = Path(bundle).absolute()
    path = None if state is None else Path(state).absolute()
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"state: {path.parent} is no folder; make it, or keep the state elsewhere")
    _policy(folder, path)
    return _deployment.bind(str(folder), None if path is None else str(path))


def app(arguments: Mapping[str, str]) -> serve.Application:
    """Build the application for ``serve run`` and Serve config files.

    Parameters
    ----------
    arguments
        `bundle` and `state`, as for :func:`build`; what is left out is taken from the environment's SENTIO_BUNDLE
        and SENTIO_STATE.

    Raises
    ------
    click.UsageError
        Something is wrong with them; Ray's command line prints that in one line and exits 2.
    """
    given = {name: arguments.get(name) or os.environ.get(variable) or None for name, variable in _VARIABLES.items()}
    unknown = sorted(set(arguments) - set(_VARIABLES))
    if unknown:
        raise click.UsageError(f"{unknown[0]}: no argument of this application; it takes bundle=FOLDER and state=FILE")
    bundle = given["bundle"]
    if bundle is None:
        raise click.UsageError("no bundle: pass bundle=models/NAME, or set SENTIO_BUNDLE to its folder")
    try:
        return build(bundle, given["state"])
    except SentioError as error:
        raise click.UsageError(str(error)) from error
