"""One training run without a sweep: the sweep's own parts for one agent, with live progress and plain files."""
