"""The method put to the test: ``python -m sentio_rllib.placebo CONFIG --markets N``.

The same sweep on markets without an edge and on markets with a planted one (`markets.py`, `runs.py`), and how often
it claims an edge on either (`rates.py`). May import `sweep` and what lies below it. Begin with `runs.py`.
"""
