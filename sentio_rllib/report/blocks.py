"""What a section of the report is made of; the template knows how each is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Note:
    """A paragraph; `tone` is ``plain``, ``caution`` or ``missing``."""

    text: str
    tone: str = "plain"
    kind: str = "note"


@dataclass(frozen=True)
class Bullets:
    """Lines of equal weight."""

    lines: Sequence[str]
    kind: str = "bullets"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Badge:
    """The verdict, in words and colour; `tone` is ``good``, ``bad`` or ``unknown``."""

    text: str
    tone: str
    kind: str = "badge"


@dataclass(frozen=True)
class Chart:
    """A figure with what it shows in a sentence."""

    svg: Markup
    caption: str
    kind: str = "chart"


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes
    ----------
    head
        Name of each column.
    rows
        Cells of each row; the first is the row's heading.
    caption
        What the table holds.
    words
        Columns of words, which are set to the left and may wrap; the first column always is one.
    marked
        Index of a row to set apart, such as the champion's.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: frozenset[int] = frozenset()
    marked: int | None = None
    kind: str = "table"


@dataclass(frozen=True)
class Details:
    """Blocks, or a text as it stands, that open on request."""

    summary: str
    text: str = ""
    blocks: Sequence[Block] = ()
    opened: bool = False
    kind: str = "details"


Block = Note | Bullets | Heading | Badge | Chart | Table | Details


@dataclass(frozen=True)
class ReportSection:
    """A numbered part of the report; `name` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
