"""The untrained Video-LLaVA: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded.blank import llavanext
from vlmbench.embedded.parts import CLIP_TOWER, PATCH, VIEW, decoder, greedy
from vlmbench.models.video_llava import VIDEO_LLAVA

# Two towers in the place of one: each is smaller.
TOWER = {**CLIP_TOWER, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 4}
PATCHES = (VIEW // PATCH) ** 2
tokenizer = llavanext.tokenizer


def processor(tokenizer: Any) -> Any:
    """The Video-LLaVA processor; a picture is squeezed into a square, not cut."""
    from transformers import (
        VideoLlavaImageProcessor,
        VideoLlavaProcessor,
        VideoLlavaVideoProcessor,
    )

    make: Any = VideoLlavaProcessor
    square: Any = {"height": VIEW, "width": VIEW}
    return make(
        image_processor=VideoLlavaImageProcessor(size=square, crop_size=square),
        video_processor=VideoLlavaVideoProcessor(size=square, crop_size=square),
        tokenizer=tokenizer,
        chat_template=VIDEO_LLAVA.template,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def network(tokenizer: Any) -> Any:
    """A randomly initialised Video-LLaVA of about two million parameters, in float32."""
    from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

    config = VideoLlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **decoder(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_seq_length=PATCHES,
        video_seq_length=8 * (PATCHES + 1),
        tie_word_embeddings=False,
    )
    return greedy(VideoLlavaForConditionalGeneration(config), tokenizer)
