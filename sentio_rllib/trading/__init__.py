"""Money: what actions on a tape earn, and what may be done.

`simulator.py` steps n accounts together, `rules.py` holds costs and limits, `masks.py` what an account or its risk
rules forbid, `portfolio.py` the six features of an account; `environment.py` shows it to gymnasium and RLlib. May
import `market`. Begin with `simulator.py`.
"""
