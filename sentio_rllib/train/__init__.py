"""One agent without a sweep: ``python -m sentio_rllib.train``.

One trial of a sweep on one fold, with the sweep's own parts. `plan.py` makes of the options what is to be trained,
`training.py` trains it, `finding.py` says what its validation shows, `result.py` what is written and told. May import
`sweep` and what lies below it. Begin with `training.py`.
"""
