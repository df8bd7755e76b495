"""Turns links to files outside of docs/ into words, for the site.

In the repository such a link leads to the file; the site doesn't have it.
"""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Rewrites a page of the top level; MkDocs calls this."""
    del kwargs
    if "/" in page.file.src_uri:  # Up one folder is still within docs/.
        return markdown
    return _OUTSIDE.sub(r"\1 (`\2` in the repository)", markdown)
