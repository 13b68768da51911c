"""How often a sweep claims an edge where there is none, and how often it finds one that is there."""
