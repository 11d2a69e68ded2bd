"""The untrained LLaVA-NeXT-Video: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, PATCH, VIEW, decoder, greedy
from vlmbench.models.video_llava import VIDEO_LLAVA

SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>", "unk_token": "<unk>"}
PINPOINTS = [[VIEW * rows, VIEW * columns] for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2))]
"""Height and width of what is cut into views; the published ones scaled down, and a single view."""


def tokenizer() -> Any:
    """The shared words with LLaVA's special tokens."""
    return vocabulary.tokenizer(SPECIAL, "<image>", "<video>")


def processor(tokenizer: Any) -> Any:
    """The LLaVA-NeXT-Video processor with views of the tower's size."""
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    make: Any = LlavaNextVideoProcessor
    size = {"shortest_edge": VIEW}, {"height": VIEW, "width": VIEW}
    return make(
        image_processor=LlavaNextImageProcessor(
            size=size[0], crop_size=size[1], image_grid_pinpoints=PINPOINTS
        ),
        video_processor=LlavaNextVideoVideoProcessor(size=size[0], crop_size=size[1]),
        tokenizer=tokenizer,
        chat_template=VIDEO_LLAVA.template,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def network(tokenizer: Any) -> Any:
    """A randomly initialised LLaVA-NeXT-Video of about two million parameters, in float32."""
    from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

    config = LlavaNextVideoConfig(
        vision_config={"model_type": "clip_vision_model", **CLIP_TOWER},
        text_config={"model_type": "llama", **decoder(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(VIEW // PATCH) ** 2,
        video_seq_length=(VIEW // PATCH // 2) ** 2,
        tie_word_embeddings=False,
    )
    return greedy(LlavaNextVideoForConditionalGeneration(config), tokenizer)
