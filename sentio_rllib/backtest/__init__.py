"""A bundle on a file of bars: ``python -m sentio_rllib.backtest models/NAME --data FILE``.

`walking.py` walks the bars with the bundle and the baselines, `telling.py` shows and writes what came of it. May
import `sweep` and what lies below it. Begin with `walking.py`.
"""
