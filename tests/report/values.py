"""Made-up figures of a summary; each differs from the others, so that a test can tell where it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SESSIONS, HOLDOUT_SESSIONS = 320, 80
LEDGER = {
    "path": "data/ledger.sqlite",
    "sweeps": 3,
    "configurations": 36,
    "evaluations": 96,
    "members": 144,
    "pruned": 11,
    "alike": [
        {"sweep": "nasdaq-1", "symbol": "QQQ", "correlation": 0.987, "dates": 212},
        {"sweep": "spy-4", "symbol": "SPY", "correlation": 0.914, "dates": 188},
    ],
}


def arms() -> dict[str, Any]:
    """Return how three arms compare, one of them without scores."""

    def result(name: str, score: float | None, difference: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
        return {
            "name": name,
            "changes": changes,
            "trial_id": "trial_0000",
            "state": "completed",
            "ended": "budget at 393,216 env steps" if score is not None else "not started",
            "score": score,
            "cv_score": score,
            "trades": 180.0,
            "env_steps": 393_216,
            "env_steps_of_best": 344_064,
            "env_steps_per_s": 5_100.0,
            "difference": difference,
        }

    shown = {"pairs": 8, "missing": 1, "mean": -0.217, "low": -0.561, "high": 0.119, "verdict": "no difference shown"}
    nothing = {"pairs": 0, "missing": 8, "mean": None, "low": None, "high": None, "verdict": "not enough pairs"}
    return {
        "baseline": "full",
        "equal_steps": False,
        "results": [
            result("full", 0.812, None),
            result("no <gate> & co", 0.595, shown, **{"policy.head": "categorical"}),
            result("mlp", None, nothing, **{"policy.encoder": "mlp"}),
        ],
    }


def metrics(sharpe: float) -> dict[str, Any]:
    """Return the metrics of a policy with this Sharpe ratio."""
    return {
        "sharpe": sharpe,
        "sharpe_with_cash": sharpe + 0.21,
        "timing_sharpe": sharpe - 0.35,
        "sortino": sharpe * 1.4,
        "calmar": None,
        "total_return": 0.2345,
        "mean_return": 1.7e-6,
        "monthly_return_21": 0.0139,
        "monthly_return_22": 0.0146,
        "max_drawdown": 0.1172,
        "longest_drawdown_bars": 31_415,
        "cvar": -0.0213,
        "win_rate": 0.541,
        "trips": 210.0,
        "trades": 421.0,
        "trades_per_day": 1.32,
        "drawdown_stops": 3.0,
        "masked_volatility": 0.274,
        "masked_clock": 0.052,
        "masked_drawdown": 0.013,
        "cuts_held": 6.0,
        "cuts_return": -0.0317,
        "turnover_per_day": 1.21,
        "exposure": 0.434,
        "fees_usd": 8_412.7,
        "sessions": SESSIONS,
        "bars": 124_800,
    }


def baselines(*, synthetic: bool) -> dict[str, Any]:
    """Return the metrics of the baselines, which know no risk masks; the oracle's where the market is synthetic."""
    flat = dict.fromkeys(metrics(0.0), 0.0) | {
        "win_rate": None,
        "sortino": None,
        "sessions": SESSIONS,
        "bars": 124_800,
    }
    random = metrics(-0.81) | {"sharpe_low": -2.04, "sharpe_high": 0.37, "draws": 100}
    held = {"flat": flat, "hold": metrics(0.62), "sma": metrics(0.18), "random": random}
    held |= {"oracle": metrics(6.31)} if synthetic else {}
    unmasked = dict.fromkeys(("masked_volatility", "masked_clock", "masked_drawdown"))
    return {name: each | unmasked for name, each in held.items()}


def market(*, synthetic: bool) -> str:
    """Return what was traded."""
    return "synthetic market with a planted edge" if synthetic else "TQQQ"


def evidence(verdict: str, labels: Sequence[str], *, synthetic: bool) -> dict[str, Any]:
    """Return evidence for this verdict on the champion, the first of `labels`."""
    raw = {
        "sharpe": 1.43,
        "psr": 0.912,
        "dsr": 0.618,
        "dsr_nominal": 0.402,
        "expected_maximum_sharpe": 1.274,
        "min_trl_years": 2.37,
        "spa_p": 0.041,
        "spa_p_hold": 0.187,
        "stepm": [labels[0]],
        "stepm_hold": [],
        "spread": 0.83,
        "of_trials": {label: 1.43 - 0.17 * place for place, label in enumerate(labels)},
    }
    timing = {key: value for key, value in raw.items() if "hold" not in key} | {
        "sharpe": 1.08,
        "psr": 0.874,
        "dsr": 0.447,
        "dsr_nominal": 0.301,
        "expected_maximum_sharpe": 1.163,
        "min_trl_years": None,
        "spa_p": 0.0004,
        "stepm": [],
        "spread": 0.57,
        "of_trials": {label: 1.08 - 0.13 * place for place, label in enumerate(labels)},
    }
    checks = [
        ("dsr_raw", 0.618, 0.95, False, "deflated Sharpe ratio of the returns >= 0.95"),
        ("dsr_timing", 0.447, 0.95, False, "deflated Sharpe ratio of the timing >= 0.95"),
        ("pbo", 0.314, 0.5, True, "probability of backtest overfitting < 0.5"),
        ("min_btl_years", None, 1.27, None, "years needed <= years available"),
    ]
    return {
        "verdict": verdict,
        "claim": f"{verdict} at 95%, fee 0.1% a side, {market(synthetic=synthetic)}",
        "reasons": ["deflated Sharpe ratio 0.447 < 0.95, that of the timing", "SPA against buy & hold: p 0.187 > 0.05"],
        "checks": [dict(zip(("name", "value", "threshold", "held", "text"), row, strict=True)) for row in checks],
        "n_trials": 96,
        "effective_trials": 17.3,
        "psr": 0.874,
        "dsr": 0.447,
        "pbo": 0.314,
        "spa_p": 0.187,
        "min_trl_years": 2.37,
        "min_btl_years": 3.86,
        "least_sharpe": 2.61,
        "sessions": SESSIONS,
        "years": SESSIONS / 252,
        "raw": raw,
        "timing": timing,
        "overfitting": {
            "all": {"pbo": 0.314, "slope": -0.27, "loss_probability": 0.412, "trials": len(labels)},
            "equal_budgets": None,
            "timing": {"pbo": 0.436, "slope": -0.38, "loss_probability": 0.523, "trials": len(labels)},
        },
        "ledger": LEDGER,
    }


WEIGHT = {
    "raw": 0.883,
    "timing": 0.917,
    "needed": 0.75,
    "by_luck": 0.25,
    "edge": 0.63,
    "by_edge": 0.62,
    "factor": 2.48,
}
"""What the holdout is worth where cross-validation shows an edge."""


def holdout(*, opened: bool, reopened: bool) -> dict[str, Any]:
    """Return the holdout: sealed, opened once, or opened again."""
    return {
        "opened": opened,
        "why": "the verdict's champion was refitted" if opened else "pass --open-holdout to open it",
        "openings": (1 if opened else 0) + reopened,
        "reopened": reopened,
        "seen": 7 if reopened else 0,
        "first": "2022-06-01T13:30:00+00:00",
        "last": "2022-09-23T19:59:00+00:00",
        "bars": 31_200,
        "sessions": HOLDOUT_SESSIONS,
        "weight": WEIGHT if opened else None,
        "metrics": metrics(0.77) if opened else None,
        "baselines": baselines(synthetic=False) if opened else None,
    }


def targets(*, opened: bool) -> dict[str, Any]:
    """Return the four targets, none reached but the drawdown's."""
    held = {
        "monthly_return": (0.10, "mean session return compounded over 21 sessions", 0.0139, 0.0071, False),
        "sharpe": (3.0, "annual Sharpe ratio", 1.43, 0.77, False),
        "max_drawdown": (0.08, "greatest fall from a peak", 0.0572, 0.0411, True),
        "win_rate": (0.65, "closed round trips with a net gain", 0.541, None, None),
    }
    made = {}
    for key, (target, text, cv, holdout, reached) in held.items():
        shut = None if holdout is None else {"estimate": holdout, "low": None, "high": None}
        measured = {"estimate": cv, "low": cv * 0.4, "high": cv * 1.6}
        if key == "max_drawdown":
            measured["at_closes"] = 0.0712
        made[key] = {
            "target": target,
            "text": text,
            "cv": measured,
            "holdout": shut if opened else None,
            "reached": reached,
        }
    return made


def stress() -> dict[str, Any]:
    """Return the champion under four kinds of costs."""
    rows = [
        ("as configured", 1.7e-6, 1.43, 0.2345),
        ("slippage x2", 9.1e-7, 0.84, 0.121),
        ("slippage x4", -8.8e-7, -0.71, -0.104),
        ("one bar of delay", 1.5e-6, 1.29, 0.205),
    ]
    keys = ("name", "mean_return", "sharpe", "total_return")
    return {
        "measured_on": "cv",
        "rows": [dict(zip(keys, row, strict=True)) for row in rows],
        "breakeven_fee": 0.00142,
        "note": "",
    }
