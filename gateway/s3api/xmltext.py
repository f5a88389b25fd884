"""Text of XML documents: escaping, and nothing else.

Rules: no lxml, no ElementTree; strings in, strings out. Split from `xmlwriter.py` so that the
error table can render without knowing the documents.
Invariant: `escape` of any str is well-formed XML 1.0 character data, and parses back to the same
str unless it held characters that XML 1.0 cannot hold; those become U+FFFD. S3 writes such keys
as character references that no XML 1.0 parser accepts; clients that need them ask for
encoding-type=url, which never gets here with control characters.
"""

import re
from typing import Final

XML_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'

# Everything that is not plain character data: markup, \r (a parser would turn it into \n), the
# other white space controls for symmetry with S3, and what XML 1.0 section 2.2 excludes.
_SPECIAL: Final = re.compile('[&<>"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def _replacement(match: re.Match[str]) -> str:
    char = match.group()
    named = _NAMED.get(char)
    if named is not None:
        return named
    if char in "\t\n\r" or "\x7f" <= char <= "\x9f":
        return f"&#{ord(char)};"
    return "\ufffd"


def escape(text: str) -> str:
    """Character data that reads back as `text`; see the module header for what XML cannot hold."""
    return _SPECIAL.sub(_replacement, text) if _SPECIAL.search(text) else text
