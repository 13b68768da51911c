"""What a sweep is told, as one typed tree from YAML, with every mistake told at once.

`schema.py` holds the keys with their ranges, `tree.py` the configuration and what follows from it, `loading.py` reads
one, `contradictions.py` checks what several keys forbid together, `space.py` and `arms.py` what varies between
trials. Imports neither Ray nor torch nor pandas, so that a mistake is told at once (a contract holds this). May
import the light modules of `policy`, `validation`, `trading` and `market`. Begin with `loading.py`.
"""
