"""From a configuration to finished trials, on Ray Tune and Optuna.

Bars, folds and settings are prepared once; a searcher proposes, a scheduler stops, Tune runs, a journal writes what
is reported; trials are read back from disk as outcomes. May import `config` and everything below it. Begin with
`tuning.py`, which runs what is left of a sweep's trials.
"""

import os

# Read by Ray when it starts, so they are set before anything here imports it.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's newer output ignores a progress reporter
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours tells an interruption from an end
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
