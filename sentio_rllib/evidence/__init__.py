"""What was ever tried, the champion, the one opening of the holdout, and what it all shows.

`ledger.py` keeps trials and openings over all sweeps, `tally.py` one sweep's part of it. `selecting.py` picks the
champion and deflates its figures, `refit.py` trains it anew, `holdout.py` opens, `claims.py` judges; `examiner.py`
measures for all of them. May import `search` and what lies below it. Begin with `claims.py`.
"""
