"""A network that says nothing: the layers of Qwen2-VL in any size, with random weights.

Gaussian weights have the flattest spectrum there is. A share of their variance needs larger ranks
than trained weights do, which low rank makes faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.spec import Mixture
from vlmbench.speed.contest import Shape

if TYPE_CHECKING:
    from torch import Tensor

_BATCHES, _TOKENS = 2, 64


@dataclass(frozen=True)
class RandomTokens:
    """Few and short samples to calibrate on: what comes of them changes no time."""

    vocabulary: int
    work: Path

    def batches(self, mixture: Mixture, size: int = 1) -> Sequence[Mapping[str, Any]]:
        """The same few, however many are asked for; see `TrainData`."""
        return [self._batch(mixture.seed + number) for number in range(_BATCHES)]

    def _batch(self, seed: int) -> dict[str, Any]:
        import torch

        ids = prompt(self.vocabulary, _TOKENS, seed)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def prompt(vocabulary: int, tokens: int, seed: int) -> Tensor:
    """Random token ids [1, tokens], of which none is a special one."""
    import torch

    from vlmbench.embedded.vocabulary import SIZE

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SIZE, vocabulary, (1, tokens), generator=generator)


def write(shape: Shape, folder: Path) -> None:
    """Save a float32 Qwen2-VL with such a decoder and next to no vision tower."""
    import torch

    from vlmbench.embedded.blank import qwen2

    tokenizer = qwen2.tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = qwen2.network(tokenizer)
        network = type(small)(_resized(small.config, shape))
    network.generation_config = small.generation_config
    network.save_pretrained(folder)
    qwen2.processor(tokenizer).save_pretrained(folder)


def _resized(config: Any, shape: Shape) -> Any:
    half = shape.hidden // shape.heads // 2
    space = 3 * half // 8
    sections = [half - 2 * space, space, space]
    config.text_config.update(
        {
            "hidden_size": shape.hidden,
            "intermediate_size": shape.mlp,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "num_hidden_layers": shape.layers,
            "layer_types": ["full_attention"] * shape.layers,
            "vocab_size": shape.vocabulary,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": sections,
            },
        }
    )
    config.vision_config.update({"hidden_size": shape.hidden, "depth": 1})
    return config
