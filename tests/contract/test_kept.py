"""A compressed checkpoint that is read back is the one that was made: every byte, every answer."""

import pytest

from vlmbench import compressed
from vlmbench.answering import answer
from vlmbench.artifacts import Store
from vlmbench.catalogue import compressions, models
from vlmbench.prompting import turn
from vlmbench.variant import load

QUANTIZED = ("8bit", "4bit", "lm8bit", "lm4bit")
ROWS = 64


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_what_is_read_back_answers_alike(embedded, tmp_path, monkeypatch, recipe):
    model, compression = models()["qwen2"], compressions()[recipe]
    source = model.sources["embedded"]
    made = []

    def loading(*parts, kept=None, **options):
        made.append(kept is None)
        return load(*parts, kept=kept, **options)

    monkeypatch.setattr(compressed, "load", loading)
    store = Store(tmp_path)

    def answers():
        variant = compressed.load_once(model, compression, source, store, device="cpu", dtype=None)
        said = {}
        for dataset in embedded.datasets:
            samples = embedded.samples(dataset).items[:ROWS]
            turns = {s.id: turn(dataset, s, model) for s in samples}
            said |= answer(variant, turns, max_new_tokens=dataset.max_new_tokens, batch_size=ROWS)
        return said, variant.census, variant.file_bytes

    assert answers() == answers()
    assert made == [True, False]
    assert store.troubles == []


def test_what_is_not_quantized_is_not_kept(tmp_path):
    model, store = models()["qwen2"], Store(tmp_path)
    for recipe in ("32bit", "16bit"):
        plain, source = compressions()[recipe], model.sources["embedded"]
        compressed.load_once(model, plain, source, store, device="cpu", dtype=None)
    assert store.entries() == []
