"""Text as a reader sees it, whatever code points it was written with."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """NFKC, case-folded, whitespace collapsed: full-width, ligatures and case made equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Folding takes U+0390 apart again, which then differs from its folded capital.
    return " ".join(unicodedata.normalize("NFKC", folded).split())
