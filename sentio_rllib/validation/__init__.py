"""What walks blocks of bars that training has not seen.

`schemes.py` and `splits.py` lay out purged folds and the holdout, `evaluation.py` walks blocks as long episodes and
records them, `series.py` and `performance.py` make figures of records. Around that: baselines, cost stress, regimes,
and the leak probes (`probes.py`, `causality.py`). May import `trading`, `market` and `statistics`; knows no network
but as a function that decides. Begin with `splits.py`, then `evaluation.py`.
"""
