"""Factors move between a feed's source and its linears, and the layer does what it did."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmbench.anatomy import LLAMA_LIKE, Feed
from vlmbench.calibration import Call, Visit
from vlmbench.errors import UsageError
from vlmbench.layers import Factors
from vlmbench.models.blip2 import OPT
from vlmbench.models.clip import TEXT
from vlmbench.models.phi3_5 import PHI3
from vlmbench.scaling import check_folded, evened, fold, foldable, linears_of, salient, smoothing

WIDTH, HEADS = 32, 4
SIZES = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": HEADS}


def llama(kv_heads: int = HEADS) -> tuple[Any, dict[str, Any]]:
    from transformers.models.llama import modeling_llama as of

    config = of.LlamaConfig(**SIZES, num_key_value_heads=kv_heads, attention_bias=True)
    return of.LlamaDecoderLayer(config, 0), {"position_embeddings": turned()}


def phi3(kv_heads: int = HEADS) -> tuple[Any, dict[str, Any]]:
    from transformers.models.phi3 import modeling_phi3 as of

    config = of.Phi3Config(**SIZES, num_key_value_heads=kv_heads, pad_token_id=0)
    return of.Phi3DecoderLayer(config, 0), {"position_embeddings": turned()}


def opt() -> tuple[Any, dict[str, Any]]:
    from transformers.models.opt import modeling_opt as of

    config = of.OPTConfig(hidden_size=WIDTH, ffn_dim=48, num_attention_heads=HEADS)
    return of.OPTDecoderLayer(config, 0), {}


def clip() -> tuple[Any, dict[str, Any]]:
    from transformers.models.clip import modeling_clip as of

    return of.CLIPEncoderLayer(of.CLIPTextConfig(**SIZES)), {"attention_mask": None}


LAYERS = {
    "llama": (llama, LLAMA_LIKE),
    "phi3": (phi3, PHI3),
    "opt": (opt, OPT),
    "clip": (clip, TEXT),
}
FEEDS = [(name, feed) for name, (_, feeds) in LAYERS.items() for feed in feeds]
IDS = [f"{name}-{feed.source}" for name, feed in FEEDS]


def turned() -> tuple[Tensor, Tensor]:
    angles = torch.linspace(0, 3, 6 * WIDTH // HEADS).view(1, 6, -1)
    return angles.cos(), angles.sin()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def made(make: Any, **options: Any) -> tuple[nn.Module, Any]:
    """A layer with nothing in it that is zero or one, and what it gives."""
    torch.manual_seed(1)
    layer, kwargs = make(**options)
    layer.config = layer.self_attn.config
    layer.config._attn_implementation = "eager"
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer.eval().requires_grad_(False)

    def run() -> Tensor:
        output = layer(random(2, 6, WIDTH), **{"attention_mask": None} | kwargs)
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found

    return layer, run


@pytest.mark.parametrize(("name", "feed"), FEEDS, ids=IDS)
def test_the_layer_does_what_it_did(name: str, feed: Feed) -> None:
    layer, run = made(LAYERS[name][0])
    before, weights = run(), {n: w.clone() for n, w in layer.named_parameters()}
    assert foldable(layer, feed)
    width = layer.get_submodule(feed.linears[0]).in_features
    fold(layer, feed, random(width).exp())
    assert torch.allclose(run(), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    changed = {n.rpartition(".")[0] for n, w in layer.named_parameters() if (w != weights[n]).any()}
    assert changed == {feed.source, *feed.linears}


@pytest.mark.parametrize("make", [llama, phi3])
def test_a_value_that_feeds_several_heads_takes_no_factor(make: Any) -> None:
    """Of two heads that share one: a fused linear then has twice its input's channels, too."""
    layer, _ = made(make, kv_heads=2)
    feeds = LAYERS[make.__name__][1]
    assert [foldable(layer, feed) for feed in feeds] == [True, False, True, True]
    assert all(foldable(made(make)[0], feed) for feed in feeds)


@pytest.mark.parametrize("feed", [PHI3[1], PHI3[3]], ids=lambda feed: feed.source)
def test_of_a_fused_linear_only_the_last_channels_change(feed: Feed) -> None:
    layer, _ = made(phi3)
    weight = layer.get_parameter(f"{feed.source}.weight")
    before, width = weight.clone(), layer.get_submodule(feed.linears[0]).in_features
    fold(layer, feed, torch.full((width,), 2.0))
    assert torch.equal(weight[:-width], before[:-width])
    assert torch.equal(weight[-width:], before[-width:] / 2)


def test_what_is_replaced_or_has_no_weight_takes_no_factor() -> None:
    layer, _ = made(opt)
    layer.fc2 = nn.Sequential(nn.Linear(48, 8), nn.Linear(8, WIDTH))
    layer.self_attn_layer_norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
    assert [foldable(layer, feed) for feed in OPT] == [False, True, True, False]
    assert "fc2.0" in linears_of(layer) and "fc2" not in linears_of(layer)


def test_a_norm_of_one_plus_its_weight_takes_no_factor() -> None:
    """Dividing the weights of Gemma's, which PaliGemma decodes with, divides no output."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    layer, run = made(llama)
    for name in ("input_layernorm", "post_attention_layernorm"):
        setattr(layer, name, GemmaRMSNorm(WIDTH).requires_grad_(False))
        layer.get_submodule(name).weight.copy_(random(WIDTH) * 100)
    before = run()
    assert [foldable(layer, feed) for feed in LLAMA_LIKE] == [False, True, False, True]
    with evened([layer], LLAMA_LIKE):
        assert torch.equal(run(), before)


def test_factors_that_change_what_a_layer_computes_are_refused() -> None:
    """As of a norm that is said to feed what it does not feed alone."""
    layer, _ = made(llama)
    real = torch.ones(2, 6, dtype=torch.bool)
    call = Call((random(2, 6, WIDTH),), {"position_embeddings": turned()}, real)
    calls: Any = [call]
    after: Any = [Call((call.run(layer),), {}, real)]
    visit = Visit("layers.3", layer, calls, after)
    for feed in LLAMA_LIKE:
        fold(layer, feed, random(layer.get_submodule(feed.linears[0]).in_features).exp())
        check_folded(visit)
    fold(layer, Feed("input_layernorm", ("self_attn.q_proj",), "self_attn"), random(WIDTH).exp())
    with pytest.raises(UsageError, match=r"layers\.3: .* change what LlamaDecoderLayer computes"):
        check_folded(visit)


@pytest.mark.parametrize("feed", [Feed("norm", ("fc1",), "fc1"), Feed("fc1", ("fc3",), "fc2")])
def test_another_architectures_feeds_are_refused(feed: Feed) -> None:
    layer, _ = made(opt)
    wrong = {"norm", "fc3"} & {feed.source, *feed.linears}
    with pytest.raises(UsageError, match=f"OPTDecoderLayer has no '{wrong.pop()}'"):
        foldable(layer, feed)


def test_smoothing_is_the_papers_formula() -> None:
    layer, _ = made(llama)
    feed, largest = LLAMA_LIKE[0], random(WIDTH).abs() * 10
    factor = smoothing(largest, layer, feed, 0.85)
    for j in range(WIDTH):
        weights = [layer.get_parameter(f"{name}.weight")[:, j] for name in feed.linears]
        highest = max(float(weight.abs().max()) for weight in weights)
        expected = float(largest[j]) ** 0.85 / highest**0.15
        assert float(factor[j]) == pytest.approx(expected, rel=1e-5)


def test_at_one_half_inputs_and_weights_get_the_same_range() -> None:
    layer, _ = made(opt)
    largest = random(WIDTH).abs() * 100
    factor = smoothing(largest, layer, OPT[2], 0.5)
    fold(layer, OPT[2], factor)
    assert torch.allclose(layer.fc1.weight.abs().amax(0), largest / factor, rtol=1e-4)


def test_channels_that_are_never_used_stay_finite() -> None:
    layer, run = made(opt)
    with torch.no_grad():
        layer.fc1.weight[:, 3] = 0
    largest = random(WIDTH).abs()
    largest[5] = 0
    factor = smoothing(largest, layer, OPT[2], 0.5)
    before = run()
    fold(layer, OPT[2], factor)
    assert factor.isfinite().all() and factor.min() > 0
    assert torch.allclose(run(), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [1, 99, 100, 101, 128, 1536])
def test_salient_channels_are_one_percent_rounded_up(width: int) -> None:
    mean = random(width).abs()
    factor = salient(mean, 0.01, 2.0)
    count = ceil(width / 100)
    assert sorted(set(factor.tolist())) in ([1.0, 2.0], [2.0])
    assert set(factor.eq(2).nonzero().view(-1).tolist()) == set(mean.argsort()[-count:].tolist())


def norms(layer: nn.Module, feeds: tuple[Feed, ...]) -> list[Tensor]:
    gains = [layer.get_parameter(f"{feed.source}.weight") for feed in feeds]
    return [gain for gain in gains if gain.ndim == 1]


@pytest.mark.parametrize("name", LAYERS)
def test_evened_channels_compute_the_same_and_come_back_to_the_bit(name: str) -> None:
    make, feeds = LAYERS[name]
    layer, run = made(make)
    for gain in norms(layer, feeds):
        gain[5] = 100.0
    weights = {n: w.clone() for n, w in layer.state_dict().items()}
    before = run()
    with evened([layer], feeds):
        assert all(gain.abs().max() < 3 * gain.abs().median() for gain in norms(layer, feeds))
        torch.testing.assert_close(run(), before)
    assert all(torch.equal(w, weights[n]) for n, w in layer.state_dict().items())
    assert not any(hasattr(module, "evened") for module in layer.modules())


def test_of_two_factors_the_first_is_evened() -> None:
    layer: Any
    layer, run = made(llama)
    layer.post_attention_layernorm.weight[5] = 100.0
    layer.mlp.up_proj = Factors(WIDTH, 48, False, rank=8).requires_grad_(False)
    before = run()
    with evened([layer], LLAMA_LIKE):
        assert layer.mlp.up_proj[0].evened[5] >= 64
        torch.testing.assert_close(run(), before)
