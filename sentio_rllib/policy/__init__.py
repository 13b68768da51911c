"""Networks: from what an agent sees to a distribution over actions and a value.

Everything is a stack of M networks, one for each (seed, fold). `variants.py` is the table of the three PPO variants
and imports no torch; `actor_critic.py` builds a network from it of `layers.py`, `encoders.py` and `heads.py`;
`deciding.py` lets one decide in an evaluation, `rl_module.py` shows it to RLlib and alone imports Ray. May import
`validation` and what lies below it. Begin with `actor_critic.py`.
"""
