from __future__ import annotations

import shutil

import pytest

from vlmbench.metrics._ptb import tokens
from vlmbench.metrics.cider import CIDER

ANSWERS = [
    "A man in a red shirt is riding a horse.",
    "Two dogs play with a frisbee, next to the water",
    "a woman's hat isn't black (it's blue)",
    "",
]
REFERENCES = [
    ["A man rides a horse.", "a man in a red shirt on a horse", 'A "cowboy" rides -- fast!'],
    ["Two brown dogs play in the water.", "Dogs with a frisbee, near the sea..."],
    ["The woman's hat is blue (not black).", "She isn't wearing a black hat"],
    ["A child on a swing", "The kid can't stop; he's swinging"],
]
CAPTIONS = """\
A man doesn't like the dog's bone.
Two men can't, won't and shouldn't've; they cannot, gonna!
The boys' shirts in the '90s, rock 'n' roll
A t-shirt (red) [blue] {green} and/or black/white
Mr. Smith went to the U.S. at 3 p.m. today.
It costs $5.50 or \u00a35; 1,000 people, 50% off #1 & more @home
wait... what?! yes!! no? dash - and -- and \u2014 here
I'm you're we've they'll he'd she's let's
caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \u201ccurly\u201d \u2018single\u2019 it\u2019s don\u2019t
5'10" tall at 10:30, a 2-year-old's 3D x-ray 24/7
o'clock ma'am y'all 'tis 'em c'mon
St. John's Dr. vs. etc. No. 5
https://www.x.com/a?b=c AT&T #hashtag @user
, leading and   double  spaces ."""


def test_tokens_by_hand() -> None:
    assert tokens("The dog's bone, isn't it?") == ["the", "dog", "'s", "bone", "is", "n't", "it"]
    assert tokens(" ., ! ? -- ...") == []


def test_against_the_definition_by_hand() -> None:
    """The paper's equations 1 to 5, of two samples."""
    score = CIDER.score(["a cat", "a dog"], [["a cat"], ["a cat dog"]])
    # Sample 0: "a", "cat" and "a cat" are in both samples' references, so each weighs log 1 = 0.
    # Sample 1: of the words only "dog" weighs anything: cosine 1. No longer n-gram in common. The
    # answer has one 2-gram less than the reference: exp(-1 / (2 * 6 * 6)).
    assert score == [0, pytest.approx(10 / 4 * 2.718281828 ** (-1 / 72))]


def test_one_sample_has_no_rare_words() -> None:
    assert CIDER.score(["a cat"], [["a cat"]]) == [0]


def test_references_without_a_token_score_0() -> None:
    assert CIDER.score(["a cat", "..."], [["!"], ["", "..."]]) == [0, 0]


def test_consensus_counts() -> None:
    references = [["a red circle above a star"] * 4 + ["shapes"], ["a blue moon"] * 5]
    common, rare, _ = (
        CIDER.score([answer, "a blue moon"], references)[0]
        for answer in ("a red circle above a star", "shapes", "a moon")
    )
    assert common > rare > 0
    assert CIDER.unit == "cider"


def test_a_caption_spelled_differently_is_the_same_caption() -> None:
    plain = CIDER.score(["a man on a horse", "two dogs"], REFERENCES[:2])
    assert CIDER.score(["A man, on a horse!", "Two dogs."], REFERENCES[:2]) == plain


@pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jre-headless")
class TestAgainstJava:
    """The tokenizer of the COCO caption evaluation, a Java program inside pycocoevalcap."""

    def tokenize(self, captions: list[str]) -> list[str]:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        numbered = {number: [{"caption": text}] for number, text in enumerate(captions)}
        return [line for (line,) in PTBTokenizer().tokenize(numbered).values()]

    def test_tokens(self) -> None:
        captions = CAPTIONS.splitlines()
        assert [" ".join(tokens(caption)) for caption in captions] == self.tokenize(captions)

    def test_scores(self) -> None:
        from pycocoevalcap.cider.cider import Cider

        answers = dict(enumerate([[line] for line in self.tokenize(ANSWERS[:3])]))
        references = dict(enumerate(self.tokenize(texts) for texts in REFERENCES))
        _, expected = Cider().compute_score(references, {**answers, 3: [""]})
        assert CIDER.score(ANSWERS, REFERENCES) == pytest.approx(expected.tolist(), abs=1e-12)
        assert min(expected[:3]) > 0
