"""From a file of minute bars to a tape of features.

A file is read, its stamps become instants, its values are checked and its sessions looked up in an exchange calendar;
the result is `Bars`, or a list of what is wrong. Features are declared in `feature_set.py`, computed over a tape in
`features.py` and bar by bar in `streaming.py`. Here too is the embedded synthetic market with its oracle. May import
`errors`, `seeding` and `command_line` alone; knows no account and no network. Begin with `bars.py`
(:func:`load_bars`), then `tape.py`.
"""
