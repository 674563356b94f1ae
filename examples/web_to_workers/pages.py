"""The task that web processes send and managers run: a Python source becomes a page in colours.

Both sides import this module. A sender needs no more than the task's name and signature; the code
runs where ``gtaskman run pages`` serves it, perhaps on a host that shares no disk with the sender,
so the source itself travels.
"""

import dataclasses
import html
import io
import itertools
import keyword
import os
import re
import tokenize
from collections.abc import Iterator

import gtaskman

STYLE = "pre{line-height:1.4} .k{color:#00c} .s{color:#080} .c{color:#888} .n{color:#a0a}"
_TAG = re.compile(r"</?span[^>]*>")


@dataclasses.dataclass(frozen=True)
class Page:
    """A source in colours, and who made it: it arrives as this very type."""

    title: str
    markup: str
    host: str
    attempt: int

    @property
    def document(self) -> str:
        """The whole page."""
        title = html.escape(self.title)
        head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        return f"{head}\n<pre>\n{self.markup}</pre>\n"


# Nobody asks for it later than at once: its record may go soon.
@gtaskman.task(timeout=60, result_ttl=60)
def colour(title: str, source: str) -> Page:
    """Find the tokens of a source and wrap them in colours. It computes all the time."""
    markup = "".join(_spans(source))
    host = os.environ.get("HOST_NAME", "this host")
    return Page(title, markup, host, gtaskman.current().attempt)


def _spans(source: str) -> Iterator[str]:
    """The source in pieces, none missing, each token of a colour in a span."""
    lines = list(io.StringIO(source, newline=""))
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    done = 0
    for token in tokenize.generate_tokens(iter(lines).__next__):
        (row, column), (last_row, last_column) = token.start, token.end
        start, end = starts[row - 1] + column, starts[last_row - 1] + last_column
        kind = _kind(token)
        if kind and start >= done:
            yield html.escape(source[done:start])
            yield f'<span class="{kind}">{html.escape(source[start:end])}</span>'
            done = end
    yield html.escape(source[done:])


def _kind(token: tokenize.TokenInfo) -> str:
    """The class of a token's colour, or "" for none."""
    if token.type == tokenize.NAME:
        return "k" if keyword.iskeyword(token.string) else ""
    return _KINDS.get(tokenize.tok_name[token.type], "")


_KINDS = {
    "STRING": "s",
    "FSTRING_START": "s",  # since Python 3.12
    "FSTRING_MIDDLE": "s",
    "FSTRING_END": "s",
    "COMMENT": "c",
    "NUMBER": "n",
}


def source_of(document: str) -> str:
    """The source that a page shows, without its colours: to see that nothing is lost or wrong."""
    markup = document.partition("\n<pre>\n")[2].removesuffix("</pre>\n")
    return html.unescape(_TAG.sub("", markup))
