"""Proximal policy optimisation of a stack of networks, on RLlib.

`rollout.py` makes columns of decisions, `gae.py` and `losses.py` are pure functions of tensors, `learner.py` takes
gradient steps, `scoring.py` scores on the validation blocks; `algorithm.py` joins them as `SentioPPO`, a trainable of
Ray Tune. May import `policy` and what lies below it. Ray is imported by `algorithm.py`, `learner.py` and
`env_runner.py` alone. Begin with `algorithm.py`.
"""
