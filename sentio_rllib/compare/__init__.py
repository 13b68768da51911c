"""Arms against each other at equal compute: ``python -m sentio_rllib.compare CONFIG``.

`running.py` runs them as a sweep, `budgets.py` makes compute equal, `comparison.py` says whether they differ. May
import `sweep` and what lies below it. Begin with `running.py`.
"""
