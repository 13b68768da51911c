"""A champion, or another trial, as a bundle: ``python -m sentio_rllib.pull experiments/NAME --output models/NAME``.

May import `sweep` and what lies below it. Begin with `bundling.py`.
"""
