"""The words that every embedded checkpoint knows; only their special tokens differ."""

from __future__ import annotations

import functools
import json
from typing import Any

from vlmbench.embedded.corpus import texts

SIZE = 640
SPECIAL = 8
"""Tokens at the end of the vocabulary that each architecture names itself."""


@functools.cache
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-level BPE words with their numbers, and the merges that make them."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bare: Any = Qwen2Tokenizer(vocab={}, merges=[])._tokenizer
    bare.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=SIZE - SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    trained = json.loads(bare.to_str())["model"]
    words = sorted(trained["vocab"].items(), key=lambda item: item[1])
    # A word of no letters stands where the bare tokenizer keeps its own special token.
    names = [word for word, _ in words if word != "<|endoftext|>"]
    return {word: i for i, word in enumerate(names)}, [tuple(m) for m in trained["merges"]]


def tokenizer(special: dict[str, str], *more: str, ends: bool = False) -> Any:
    """A byte-level tokenizer of the shared words with an architecture's own special tokens.

    `special` maps what a token is for (`eos_token`, `pad_token`, ...) to how it is written, in the
    order of their numbers; `more` special tokens follow. Every text begins with the `bos_token`;
    `ends`: whether it ends with the `eos_token`.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    words, merges = vocabulary()
    make: Any = Qwen2Tokenizer
    backend: Any = make(
        vocab=words,
        merges=merges,
        unk_token=None,
        eos_token=special["eos_token"],
        pad_token=special["pad_token"],
    )._tokenizer
    backend.add_special_tokens(list(special.values()))
    first, last = special["bos_token"], special["eos_token"]
    backend.post_processor = TemplateProcessing(
        single=f"{first} $A {last}" if ends else f"{first} $A",
        special_tokens=[(token, backend.token_to_id(token)) for token in (first, last)],
    )
    wrap: Any = PreTrainedTokenizerFast
    made = wrap(tokenizer_object=backend, model_max_length=2048, padding_side="left", **special)
    made.add_special_tokens({"additional_special_tokens": list(more)})
    return made
