"""Every catalogue entry keeps its promises; a new entry needs no new test."""

import pytest

from vlmbench import catalogue, video
from vlmbench.evaluate import chosen_metrics
from vlmbench.pictures import decode_picture
from vlmbench.pytest_cells import DEMOS

SHIPPED = [name for name, model in catalogue.models().items() if "embedded" in model.sources]
RECIPES = ("32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit")


@pytest.mark.parametrize("name", catalogue.datasets())
def test_a_data_set_can_be_read_scored_and_shown(embedded, name):
    dataset = embedded.entries.datasets[name]
    samples = embedded.samples(dataset).items
    assert len(samples) == (1000 if name == "videoqa" else 500)
    assert all(sample.references and sample.question and sample.cluster for sample in samples)
    first = samples[0]
    assert video.seen(first.clip).frames == 8 if first.clip else decode_picture(first.pictures[0])
    assert 3 <= len(dataset.demos) == len(set(dataset.demos)) <= DEMOS
    metrics = chosen_metrics(dataset, embedded.entries.metrics, "embedded")
    first = [list(sample.references) for sample in samples[:20]]
    for metric in metrics.values():
        assert all(score >= 0 for score in metric.score([r[0] for r in first], first))


@pytest.mark.parametrize("name", catalogue.metrics())
def test_a_metric_prefers_the_reference_to_nonsense(name):
    metric = catalogue.metrics()[name]
    references = [["B", "a red star"], ["C", "a blue ring"], ["A", "a green moon"]]
    if name == "cider":
        references = [[text] for _, text in references]
    right = metric.score([r[0] for r in references], references)
    wrong = metric.score(["zzz"] * 3, references)
    assert all(r > w for r, w in zip(right, wrong, strict=True))
    assert metric.version


@pytest.mark.parametrize("name", catalogue.models())
def test_a_model_names_known_data_sets_and_a_published_checkpoint(embedded, name):
    model = embedded.entries.models[name]
    assert model.datasets and set(model.datasets) <= set(embedded.entries.datasets)
    assert "hub" in model.sources


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_is_small(embedded, name):
    model = embedded.entries.models[name]
    variant = embedded.variant(model, embedded.entries.compressions["32bit"])
    parameters = sum(p.numel() for p in variant.network.parameters())
    assert 1e6 <= parameters <= 4e6


@pytest.mark.parametrize("name", SHIPPED)
def test_variants_get_smaller_with_their_bits(embedded, name):
    """Each load compares the census with the recipe's promise; here, one with another."""
    model = embedded.entries.models[name]
    variants = {
        recipe: embedded.variant(model, embedded.entries.compressions[recipe]) for recipe in RECIPES
    }
    footprint = {recipe: v.census.footprint_bytes for recipe, v in variants.items()}
    written = {recipe: v.file_bytes for recipe, v in variants.items()}
    assert written["32bit"] == 2 * written["16bit"]
    for size in (footprint, written):
        assert size["4bit"] < size["8bit"] < size["16bit"] < size["32bit"]
        assert size["4bit"] < size["lm4bit"] < size["16bit"]
        assert size["8bit"] < size["lm8bit"] < size["16bit"]


def test_headline_variants_are_told_apart_by_name():
    """`pytest -k` matches substrings."""
    names = [f"{m}_{c}" for m in catalogue.models() for c in RECIPES]
    assert [(a, b) for a in names for b in names if a != b and a in b] == []
