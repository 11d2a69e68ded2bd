"""The untrained Idefics2: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, PATCH, decoder, greedy

SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>", "unk_token": "<unk>"}
LONGEST = 9 * PATCH
LATENTS = 64

# The published template's form.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def tokenizer() -> Any:
    """The shared words with Idefics2's special tokens."""
    named = "<fake_token_around_image>", "<image>", "<end_of_utterance>"
    return vocabulary.tokenizer(SPECIAL, *named)


def processor(tokenizer: Any) -> Any:
    """The Idefics2 processor; the drawn pictures keep their size."""
    from transformers import Idefics2ImageProcessor, Idefics2Processor

    make: Any = Idefics2Processor
    size: Any = {"shortest_edge": PATCH, "longest_edge": LONGEST}
    return make(
        image_processor=Idefics2ImageProcessor(size=size),
        tokenizer=tokenizer,
        image_seq_len=LATENTS,
        chat_template=CHAT_TEMPLATE,
    )


def network(tokenizer: Any) -> Any:
    """A randomly initialised Idefics2 of about two million parameters, in float32."""
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration

    text = decoder(tokenizer)
    config = Idefics2Config(
        vision_config={
            "hidden_size": CLIP_TOWER["hidden_size"],
            "intermediate_size": 128,
            "patch_size": PATCH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": LONGEST,
        },
        perceiver_config={
            "hidden_size": text["hidden_size"],
            "rms_norm_eps": text["rms_norm_eps"],
            "resampler_n_latents": LATENTS,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 64,
            "num_key_value_heads": 2,
        },
        text_config={"model_type": "mistral", **text, "sliding_window": None},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    made = greedy(Idefics2ForConditionalGeneration(config), tokenizer)
    ends = [tokenizer.eos_token, "<end_of_utterance>"]
    made.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    return made
