"""Penn Treebank tokens of a caption, as the COCO caption evaluation has them, without Java.

Official script: Stanford PTBTokenizer 3.4.1 (`-preserveLines -lowerCase`) behind pycocoevalcap's
`ptbtokenizer.py`, which then drops a list of punctuation. Brackets stay, as "-lrb-" and "-rrb-":
the list has them in capitals, and the tokens are lower-case by then.

Differs from the reference: only what captions are made of is the same. Initials and abbreviations
beyond the commonest lose their full stop, "rock'n'roll" and emoticons are cut elsewhere, fractions
such as U+00BD are not spelled out.
"""

from __future__ import annotations

import re
import unicodedata

_TRANSLATED = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u00a3": "#",
        "\u20ac": "$",
        "\u00a2": " cents ",
    }
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_DROPPED = frozenset("'\"`.?!,:;-\u2013\u2014\u2026")

_CLITIC = re.compile(r"(?i)(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)")
_FUSED = re.compile(
    r"(?i)(?<![\w'-])(can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|gim(?=me\b)"
    r"|lem(?=me\b)|y'(?=all\b)|'t(?=is\b|was\b))(\w+)(?![-'\w])"
)
_TOKEN = re.compile(
    r"""  https?://\S+ | www\.\S+
        | (?:[A-Za-z]\.){2,}(?:-\w+)*                                     # u.s.  U.S.-based
        | (?i:\b(?:mrs?|ms|dr|prof|st|ave|rd|blvd|inc|co|corp|ltd|jr|sr|mt|vs|etc)\.)
        | (?i:\bno\.(?=\s*\d))
        | (?i:n't\b|'(?:s|m|d|re|ve|ll|em|cause)\b|'n'|'\d\ds\b|\by'(?=\s)|'t\b)
        | [A-Z]+&[A-Z]+ | [#@][^\W\d]\w*
        # 1,000  x-ray  and/or  o'clock
        | (?:\.(?=\d))?\w+(?:(?:[-./]|(?<=\d)[,:](?=\d)|(?<=[^\W\d])'(?=[^\W\d]))\w+)*
        | [?!]{2,} | \S
    """,
    re.VERBOSE,
)


def tokens(caption: str) -> list[str]:
    """Lower-cased tokens without punctuation: "The dog's bone." -> the, dog, 's, bone."""
    text = unicodedata.normalize("NFC", caption).translate(_TRANSLATED)
    text = _FUSED.sub(r"\1 \2", _CLITIC.sub(r" \1", text))
    found = (match.lower() for match in _TOKEN.findall(text))
    return [_BRACKETS.get(token, token) for token in found if token not in _DROPPED]
