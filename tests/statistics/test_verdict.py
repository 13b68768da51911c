"""The verdict: each check alone turns it, and missing data is told apart from a failed check."""

from __future__ import annotations

from typing import Any

import pytest

from sentio_rllib.statistics.verdict import MIN_HOLDOUT_SESSIONS, no_champion, reach_verdict


def found(**changes: Any) -> dict[str, Any]:
    """Deflated statistics that hold; changes as raw__dsr=0.5."""
    held: dict[str, Any] = {
        "chosen": "a",
        "raw": {"dsr": 0.99, "spa_p": 0.01, "stepm": ["a", "b"]},
        "timing": {"dsr": 0.98, "spa_p": 0.02, "stepm": ["a"]},
        "overfitting": {part: {"pbo": 0.2, "loss_probability": 0.0} for part in ("all", "timing")},
        "missing": [],
    }
    for key, value in changes.items():
        part, _, leaf = key.partition("__")
        if leaf:
            held[part] = held[part] | {leaf: value}
        else:
            held[part] = value
    return held


def holdout(**changes: Any) -> dict[str, Any]:
    metrics = {"sharpe": 1.0, "timing_sharpe": 0.5, "sessions": 30, "trades": 4.0}
    held = {"opened": True, "why": "", "sound": True, "openings": 1}
    return held | {"metrics": metrics | {key: changes.pop(key) for key in list(changes) if key in metrics}} | changes


def test_supported_takes_every_check() -> None:
    judgement = reach_verdict(found(), holdout(), confidence=0.95)
    assert judgement.verdict == "supported"
    assert [check.name for check in judgement.checks] == [
        *("dsr_raw", "spa_raw", "stepm_raw", "dsr_timing", "spa_timing", "stepm_timing", "pbo_raw", "pbo_timing"),
        *("holdout", "holdout_raw", "holdout_timing"),
    ]
    assert all(check.held for check in judgement.checks)
    assert len(judgement.reasons) == len(judgement.checks)


@pytest.mark.parametrize(
    ("deflated", "opened", "name"),
    [
        ({"raw__dsr": 0.949}, {}, "dsr_raw"),
        ({"timing__dsr": 0.5}, {}, "dsr_timing"),
        ({"raw__spa_p": 0.06}, {}, "spa_raw"),
        ({"timing__spa_p": 0.051}, {}, "spa_timing"),
        ({"timing__dsr": None}, {}, "dsr_timing"),
        ({"raw__stepm": ["b"]}, {}, "stepm_raw"),
        ({"timing__stepm": []}, {}, "stepm_timing"),
        ({"overfitting__all": {"pbo": 0.6, "loss_probability": 0.2}}, {}, "pbo_raw"),
        ({"overfitting__timing": {"pbo": 0.6, "loss_probability": 0.2}}, {}, "pbo_timing"),
        ({}, {"sharpe": 0.0}, "holdout_raw"),
        ({}, {"timing_sharpe": -0.1}, "holdout_timing"),
        ({}, {"sound": False, "why": "opened twice"}, "holdout"),
    ],
)
def test_each_check_alone_turns_it(deflated: dict[str, Any], opened: dict[str, Any], name: str) -> None:
    judgement = reach_verdict(found(**deflated), holdout(**opened), confidence=0.95)
    assert judgement.verdict == "not supported"
    assert [check.name for check in judgement.checks if check.held is False] == [name]
    assert len(judgement.reasons) == 1
    assert all(word not in judgement.reasons[0] for word in ("None", "nan"))


def test_choosing_among_equals_is_no_fault_where_the_chosen_one_gains() -> None:
    equals = {"pbo": 0.7, "loss_probability": 0.05}
    assert (
        reach_verdict(found(overfitting={"all": equals, "timing": equals}), holdout(), confidence=0.95).verdict
        == "supported"
    )


def test_one_trial_needs_no_selection() -> None:
    judgement = reach_verdict(found(overfitting={"all": None, "timing": None}), holdout(), confidence=0.95)
    assert judgement.verdict == "supported"


def test_thresholds_are_met_exactly() -> None:
    deflated = found(raw__dsr=0.95, timing__dsr=0.95, raw__spa_p=0.04)
    assert reach_verdict(deflated, holdout(), confidence=0.95).verdict == "supported"


def test_a_holdout_that_stayed_shut_supports_nothing() -> None:
    judgement = reach_verdict(found(), {"opened": False, "why": "it was opened before"}, confidence=0.95)
    assert judgement.verdict == "not supported"
    assert judgement.reasons == ("the holdout was not opened: it was opened before",)
    assert reach_verdict(found(), None, confidence=0.95).reasons == ("no holdout was kept (validation.holdout is 0)",)


def test_too_few_sessions_win_over_what_failed() -> None:
    deflated = found(missing=["x: 10 periods, needed 20 or more"], raw__dsr=None, raw__spa_p=None, timing__dsr=0.1)
    judgement = reach_verdict(deflated, holdout(), confidence=0.95)
    assert judgement.verdict == "not enough data"
    assert judgement.reasons[0] == "x: 10 periods, needed 20 or more"
    assert {check.name: check.held for check in judgement.checks}["dsr_raw"] is None
    assert any("0.1" in reason for reason in judgement.reasons)


def test_a_champion_that_never_trades_on_the_holdout_is_told() -> None:
    judgement = reach_verdict(found(), holdout(sharpe=0.0, timing_sharpe=0.0, trades=0.0), confidence=0.95)
    assert judgement.verdict == "not supported"
    assert all("where the champion never trades" in reason for reason in judgement.reasons)


def test_a_short_holdout_is_too_little() -> None:
    judgement = reach_verdict(found(), holdout(sessions=MIN_HOLDOUT_SESSIONS - 1), confidence=0.95)
    assert judgement.verdict == "not enough data"
    assert judgement.reasons[0].startswith("holdout: 4 sessions, needed 5 or more")
    assert reach_verdict(found(), holdout(sessions=MIN_HOLDOUT_SESSIONS), confidence=0.95).verdict == "supported"


def test_nothing_to_judge_is_not_supported() -> None:
    assert no_champion("no trading").summary() == {"verdict": "not supported", "reasons": ["no trading"], "checks": []}
