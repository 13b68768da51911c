"""What a sweep's state is where trials failed: never a finding, and no finding a failure."""

from __future__ import annotations

import pytest

from sentio_rllib.config.loading import build_config
from sentio_rllib.evidence.selecting import state_of
from sentio_rllib.search.selection import Outcome, best_outcome
from sentio_rllib.search.tuning import SearchCourse

CONFIG = build_config({"search": {"grace_steps": 65_536, "env_steps": 131_072, "evaluate_every": 65_536}})


def trial(state: str, steps: int, trades: float | None) -> Outcome:
    best = {} if trades is None else {"cv_score": 1.0, "validation_trades": trades, "env_steps": steps}
    curve = [{"env_steps": steps, "env_steps_per_s": 1.0}] if steps else []
    return Outcome(0, "trial_0000", state, "", {}, curve, best)


DONE, SHORT = 131_072, 8_192
LOST, IDLE = trial("failed", DONE, 9.0), trial("completed", DONE, 0.0)


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        ([trial("failed", 0, None)] * 2, "failed"),
        ([LOST, LOST], "failed"),
        ([LOST, IDLE], "failed"),
        ([trial("failed", 0, None), IDLE], "no trading"),
        ([LOST, trial("completed", DONE, 5.0)], "completed"),
        ([trial("failed", 0, None), trial("unfinished", 0, None)], "budget too short"),
        ([LOST, trial("unfinished", SHORT, 0.0)], "budget too short"),
    ],
)
def test_state_where_trials_failed(outcomes: list[Outcome], wanted: str) -> None:
    assert state_of(CONFIG, outcomes, best_outcome(outcomes), SearchCourse(1.0, 0, 0, interrupted=False)) == wanted
