"""The sweep as a command: ``python -m sentio_rllib.sweep CONFIG``.

`run.py` is a sweep from its configuration to its summary, step by step; `folder.py` says who may start in a folder,
`outcome.py` writes what a sweep leaves, `results.py` what the terminal shows, `dry_run.py` what would run. May import
every room below it. Begin with `run.py`.
"""
