"""A compressed checkpoint that is read back is the one that was made: every byte, every answer."""

from dataclasses import dataclass

import pytest
from transformers import PreTrainedModel

from vlmbench import compressed
from vlmbench.answering import answer
from vlmbench.artifacts import Store
from vlmbench.catalogue import compressions, models
from vlmbench.compression.bnb import LM_NF4, BitsAndBytes
from vlmbench.compression.finetune import FineTune
from vlmbench.errors import UsageError
from vlmbench.prompting import turn
from vlmbench.selection import compression
from vlmbench.variant import load

QUANTIZED = ("8bit", "4bit", "lm8bit", "lm4bit")
ROWS = 24


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_what_is_read_back_answers_alike(embedded, tmp_path, monkeypatch, recipe):
    model, compression = models()["qwen2"], compressions()[recipe]
    source = model.sources["embedded"]
    made = []

    def loading(*parts, kept=None, **options):
        made.append(kept is None)
        return load(*parts, kept=kept, **options)

    monkeypatch.setattr("vlmbench.variant.load", loading)
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


@pytest.mark.parametrize("recipe", ["depth50", "depth50+4bit"])
def test_how_long_it_took_to_make_is_kept_with_it(tmp_path, recipe):
    model, store = models()["qwen2"], Store(tmp_path)
    made, source = compression(recipe, compressions()), model.sources["embedded"]
    parts = [model, made, source, store, lambda *_: None]
    one, two = (compressed.load_once(*parts, device="cpu", dtype=None) for _ in range(2))
    assert one.made_s == two.made_s > 0.0


@pytest.mark.parametrize("recipe", ["awq_w4a16", "sq_w8a8_group"])
def test_what_cannot_be_packed_is_told_before_it_is_trained(tmp_path, monkeypatch, recipe):
    def trained(*parts):
        raise AssertionError("minutes are gone by now")

    monkeypatch.setattr(FineTune, "make", trained)
    made = compression(f"lowrank80_ft+{recipe}", compressions())
    model, store = models()["qwen2"], Store(tmp_path)
    source, data = model.sources["embedded"], lambda *_: None
    with pytest.raises(UsageError, match=rf"{recipe}: .* input channels cannot be split"):
        compressed.load_once(model, made, source, store, data, device="cpu", dtype=None)


def test_weights_left_on_disk_are_there_though_nothing_can_be_kept(embedded, tmp_path):
    (tmp_path / "file").write_text("in the way")
    model, store = models()["qwen2"], Store(tmp_path / "file" / "cache")
    (dataset,) = [one for one in embedded.datasets if one.name == "vqav2"]
    turns = {s.id: turn(dataset, s, model) for s in embedded.samples(dataset).items[:2]}
    said = []
    for name in ("depth50", "depth50+offload4mb"):
        recipe, source = compression(name, compressions()), model.sources["embedded"]
        variant = compressed.load_once(
            model, recipe, source, store, lambda *_: None, device="cpu", dtype=None
        )
        said.append(answer(variant, turns, max_new_tokens=4, batch_size=2))
    assert said[0] == said[1]


def test_what_is_not_quantized_is_not_kept(tmp_path):
    model, store = models()["qwen2"], Store(tmp_path)
    for recipe in ("32bit", "16bit"):
        plain, source = compressions()[recipe], model.sources["embedded"]
        compressed.load_once(model, plain, source, store, device="cpu", dtype=None)
    assert store.entries() == []


@dataclass(frozen=True)
class Halving(BitsAndBytes):
    """What a loader makes is changed in place as well."""

    def apply(self, model, anatomy):
        model.get_submodule(anatomy.decoder).norm.weight.data.mul_(0.5)


def test_what_a_recipe_does_in_place_is_done_once(tmp_path):
    model, recipe, store = (
        models()["qwen2"],
        Halving("halving", "nf4", LM_NF4.kept),
        Store(tmp_path),
    )
    source = model.sources["embedded"]
    norms = [
        compressed.load_once(model, recipe, source, store, device="cpu", dtype=None)
        .network.get_submodule(model.anatomy.decoder)
        .norm.weight.tolist()
        for _ in range(2)
    ]
    assert norms[0] == norms[1] and len(store.entries()) == 1


def test_a_network_that_cannot_be_written_is_used_all_the_same(tmp_path, monkeypatch):
    def refusing(self, folder, **options):
        raise ValueError("this kind is not serializable")

    model, store = models()["qwen2"], Store(tmp_path)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", refusing)
    source = model.sources["embedded"]
    compressed.load_once(model, LM_NF4, source, store, device="cpu", dtype=None)
    assert store.entries() == [] and "not serializable" in store.troubles[0]
