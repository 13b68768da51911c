"""What returns are worth: pure functions of arrays, which know no bars.

Metrics, Sharpe ratios under selection (PSR, DSR, track record lengths), overfitting, bootstrap tests, targets, and
the verdict that is made of them. Each takes arrays or plain figures and cites its source. May import `errors` alone.
Begin with `deflation.py`, which puts the others to use; `inputs.py` says what every function takes and refuses.
"""
