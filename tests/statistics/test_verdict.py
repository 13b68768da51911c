"""The verdict: each check alone turns it, and missing data is told apart from a failed check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sentio_rllib.statistics.significance import probabilistic_sharpe_ratio, sharpe_moments
from sentio_rllib.statistics.verdict import MIN_HOLDOUT_SESSIONS, no_champion, reach_verdict, weigh_holdout

AT: dict[str, Any] = {"confidence": 0.95, "scope": "fee 0.1% a side, TQQQ"}


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
    metrics = {"sharpe": 1.0, "sessions": 30, "trades": 4.0}
    weight = {"timing": 0.8, "edge": 2.0, "by_luck": 0.25, "by_edge": 0.5, "factor": 2.0}
    held: dict[str, Any] = {"opened": True, "why": "", "sound": True, "openings": 1}
    for name, part in (("metrics", metrics), ("weight", weight)):
        held[name] = part | {key: changes.pop(key) for key in list(changes) if key in part}
    return held | changes


def test_supported_takes_every_check() -> None:
    judgement = reach_verdict(found(), holdout(), **AT)
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
        ({}, {"timing": 0.74}, "holdout_timing"),
        ({}, {"timing": None}, "holdout_timing"),
        ({}, {"sound": False, "why": "opened twice"}, "holdout"),
    ],
)
def test_each_check_alone_turns_it(deflated: dict[str, Any], opened: dict[str, Any], name: str) -> None:
    judgement = reach_verdict(found(**deflated), holdout(**opened), **AT)
    assert judgement.verdict == "not supported"
    assert [check.name for check in judgement.checks if check.held is False] == [name]
    assert len(judgement.reasons) == 1
    assert all(word not in judgement.reasons[0] for word in ("None", "nan"))


def test_choosing_among_equals_is_no_fault_where_the_chosen_one_gains() -> None:
    equals = {"pbo": 0.7, "loss_probability": 0.05}
    assert reach_verdict(found(overfitting={"all": equals, "timing": equals}), holdout(), **AT).verdict == "supported"


def test_one_trial_needs_no_selection() -> None:
    judgement = reach_verdict(found(overfitting={"all": None, "timing": None}), holdout(), **AT)
    assert judgement.verdict == "supported"


def test_thresholds_are_met_exactly() -> None:
    deflated = found(raw__dsr=0.95, timing__dsr=0.95, raw__spa_p=0.04)
    assert reach_verdict(deflated, holdout(), **AT).verdict == "supported"


def test_a_holdout_that_stayed_shut_supports_nothing() -> None:
    judgement = reach_verdict(found(), {"opened": False, "why": "it was opened before"}, **AT)
    assert judgement.verdict == "not supported"
    assert judgement.reasons == ("the holdout was not opened: it was opened before",)
    assert reach_verdict(found(), None, **AT).reasons == ("no holdout was kept (validation.holdout is 0)",)


def test_too_few_sessions_win_over_what_failed() -> None:
    deflated = found(missing=["x: 10 periods, needed 20 or more"], raw__dsr=None, raw__spa_p=None, timing__dsr=0.1)
    judgement = reach_verdict(deflated, holdout(), **AT)
    assert judgement.verdict == "not enough data"
    assert judgement.reasons[0] == "x: 10 periods, needed 20 or more"
    assert {check.name: check.held for check in judgement.checks}["dsr_raw"] is None
    assert any("0.1" in reason for reason in judgement.reasons)


def test_a_champion_that_never_trades_on_the_holdout_is_told() -> None:
    judgement = reach_verdict(found(), holdout(sharpe=0.0, timing=None, trades=0.0), **AT)
    assert judgement.verdict == "not supported"
    assert all("where the champion never trades" in reason for reason in judgement.reasons)


def test_a_short_holdout_is_too_little() -> None:
    judgement = reach_verdict(found(), holdout(sessions=MIN_HOLDOUT_SESSIONS - 1), **AT)
    assert judgement.verdict == "not enough data"
    assert judgement.reasons[0].startswith("holdout: 19 sessions, needed 20 or more")
    assert reach_verdict(found(), holdout(sessions=MIN_HOLDOUT_SESSIONS), **AT).verdict == "supported"


def test_the_claim_says_of_what_it_speaks() -> None:
    assert reach_verdict(found(), holdout(), **AT).claim == "supported at 95%, fee 0.1% a side, TQQQ"
    other = {"confidence": 0.975, "scope": "fee 0.02% a side, synthetic market with a planted edge"}
    judgement = reach_verdict(found(), None, **other)
    assert judgement.claim == ("not supported at 97.5%, fee 0.02% a side, synthetic market with a planted edge")
    assert judgement.summary()["claim"] == judgement.claim


def test_what_a_holdout_adds_depends_on_its_length() -> None:
    returns = np.random.default_rng(3).normal(0.001, 0.01, 225)
    long, short = (weigh_holdout(returns[:size], returns[:size], 2.0, sessions_per_year=252) for size in (225, 27))
    moments = sharpe_moments(returns)
    shape = (moments.skew, moments.kurtosis)
    assert long["timing"] == probabilistic_sharpe_ratio(moments.sharpe, 0.0, 225, *shape, under="null")
    # of markets whose timing has a true Sharpe ratio of 2, how many pass: counted
    made = np.random.default_rng(4).normal(2.0 / math.sqrt(252), 1.0, (4000, 225))
    for told, size in ((long, 225), (short, 27)):
        passed = np.mean([made[row, :size].mean() * math.sqrt(size) > 0.6745 for row in range(4000)])
        assert told["by_edge"] == pytest.approx(passed, abs=0.02)
        assert told["factor"] == pytest.approx(told["by_edge"] / 0.25)
    assert long["factor"] > 1.4 * short["factor"]
    reason = reach_verdict(found(), holdout(**{key: long[key] for key in ("edge", "by_edge", "factor")}), **AT).reasons
    assert any("raises the odds" in line and "without an edge 25%" in line for line in reason)


def test_a_holdout_of_nothing_has_no_probability() -> None:
    told = weigh_holdout(np.zeros(30), np.zeros(30), None, sessions_per_year=252)
    assert (told["raw"], told["timing"], told["edge"], told["factor"]) == (None, None, None, None)


def test_nothing_to_judge_is_not_supported() -> None:
    told = no_champion("no trading").summary()
    assert told == {"verdict": "not supported", "claim": "not supported", "reasons": ["no trading"], "checks": []}
