"""What the variants say, for people to read: ten named demo rows of each data set."""


def test_demos(run, sample, snapshot):
    scored = run.scored(sample.id)
    assert {
        "question": scored.question,
        "references": sorted(set(scored.references)),
        "answer": scored.answer,
    } == snapshot
