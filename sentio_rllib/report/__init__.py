"""The files of a sweep as one page of HTML, which runs no script.

`sweep_files.py` reads the folder, a `*_section.py` makes each part of the page, `figures.py` draws, `page.py` joins
them. Reads files alone: it may import `errors` and no other room. Begin with `page.py`.
"""
