"""Makes Markdown of our docstrings, for the reference pages.

They are written for `help()` and for Google-style readers: mathematics as in
Sphinx, one `Example:`. Griffe, which reads them for mkdocstrings, wants
`Examples:`, and the pages want `$...$` and `$$...$$`. Nothing else is changed.
"""

import re
import textwrap
from typing import Any

import griffe

# A formula goes on while its lines are indented.
_BLOCK = re.compile(r"^( *)\.\. math:: (.*(?:\n\1 +\S.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of a module, class, function or attribute."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    r"""Returns a docstring with Markdown's mathematics and Griffe's sections.

    Example:
        >>> print(to_markdown("The rate :math:`\\eta`."))
        The rate $\eta$.
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]+)`", _inline, text)
    return _BLOCK.sub(_block, text)


def _inline(match: re.Match) -> str:
    return f"${' '.join(match[1].split())}$"


def _block(match: re.Match) -> str:
    formula = f"$$\n{' '.join(match[2].split())}\n$$"
    return textwrap.indent(formula, match[1])
