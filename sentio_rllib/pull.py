"""Copies a sweep's best checkpoint out: ``python -m sentio_rllib.pull experiments/NAME --output models/NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sentio_rllib.errors import CheckpointError, SentioError
from sentio_rllib.ppo.checkpoint import load_model, save_model
from sentio_rllib.sweep.champion import Model, champion_model, score_again
from sentio_rllib.sweep.claim import CONFIG, check_fingerprint
from sentio_rllib.sweep.config import load_config
from sentio_rllib.sweep.outcome import CHAMPION
from sentio_rllib.sweep.prepare import prepare
from sentio_rllib.sweep.trials import read_outcomes

SCORE_TOLERANCE = 1e-6


def pull(experiment: Path, output: Path, trial: str | None = None) -> Path:
    """Copy the champion of a sweep, or one trial's best members, to `output`.

    Parameters
    ----------
    experiment
        Folder of the sweep.
    output
        Folder to make; must not exist.
    trial
        Trial to take instead of the champion, for example ``trial_0003``.

    Raises
    ------
    CheckpointError
        If there is no such sweep or trial, `output` exists, or what is copied is incomplete or altered.
    SweepError
        If a trial is asked for and the bars are not those of the sweep.
    """
    if not (experiment / CONFIG).is_file():
        raise CheckpointError(f"{experiment}: no sweep is here ({CONFIG} is missing); pass experiments/NAME")
    if output.exists():
        raise CheckpointError(f"{output}: exists already; choose another --output or remove it")
    weights, metadata = _champion(experiment) if trial is None else _members_of(experiment, trial)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_model(output, weights, metadata)
    except OSError as error:
        raise CheckpointError(f"{output}: cannot be written ({error}); choose another --output") from error
    return output


def _champion(experiment: Path) -> Model:
    source = experiment / CHAMPION
    if not source.is_dir():
        raise CheckpointError(
            f"{experiment}: the sweep has no champion (no trial trades, or it was not finished); "
            "see leaderboard.parquet, finish it with --resume, or pass --trial"
        )
    return load_model(source)


def _members_of(experiment: Path, trial: str) -> Model:
    config = load_config(experiment / CONFIG)
    outcomes = {outcome.trial_id: outcome for outcome in read_outcomes(experiment, config)}
    if trial not in outcomes:
        raise CheckpointError(f"--trial {trial}: no such trial; choose one of {', '.join(sorted(outcomes))}")
    if not outcomes[trial].best:
        raise CheckpointError(f"--trial {trial}: it has no intact checkpoint; it ended: {outcomes[trial].ended}")
    prepared = prepare(config)
    check_fingerprint(experiment, prepared)
    return champion_model(outcomes[trial], config, prepared)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 the scores differ."""
    parser = argparse.ArgumentParser(prog="python -m sentio_rllib.pull", description=__doc__)
    parser.add_argument("experiment", type=Path, help="folder of the sweep, experiments/NAME")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, models/NAME")
    parser.add_argument("--trial", help="take this trial's best members instead of the champion's")
    parser.add_argument("--verify", action="store_true", help="score the members again on the folds")
    args = parser.parse_args(arguments)
    try:
        folder = pull(args.experiment, args.output, args.trial)
        print(f"pulled {args.trial or 'the champion'} to {folder}")
        if not args.verify:
            return 0
        written, now = score_again(folder)
    except SentioError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 2
    print(f"cv_score in the sweep {written:.9f}, scored again {now:.9f}")
    if abs(written - now) > SCORE_TOLERANCE:
        print(f"error: the scores differ by more than {SCORE_TOLERANCE:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
