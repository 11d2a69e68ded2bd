"""Text as a reader sees it, whatever code points it was written with."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """NFKC, case-folded, whitespace collapsed: full-width, ligatures and case made equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Folding can undo NFKC (U+0345, for one), so that equal texts would differ.
    return " ".join(unicodedata.normalize("NFKC", folded).split())
