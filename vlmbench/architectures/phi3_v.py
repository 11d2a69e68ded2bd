"""Phi-3.5-vision: a CLIP tower, a projector and the Phi-3 decoder (arXiv 2404.14219).

Composed of transformers' own tower and decoder; the parameter names are those of the published
checkpoint. Pictures come as one small view of the whole and up to 16 crops of it (HD transform).

Differs from the reference: a picture's place in the prompt is held by the token `<|image|>`, where
the reference writes negative numbers; both are replaced by what the tower sees.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.phi3.configuration_phi3 import Phi3Config
from transformers.models.phi3.modeling_phi3 import Phi3ForCausalLM, Phi3Model

_PUBLISHED_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


class Phi3VConfig(Phi3Config):
    """The decoder's configuration with the tower's; without one, that of the published tower."""

    model_type = "phi3_v"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": CLIPVisionConfig}

    vision_config: dict[str, Any] | CLIPVisionConfig | None = None
    image_token_id: int = 32044
    """`<|image|>`."""
    feature_layer: int = -2
    """The layer of the tower whose output is used, counted from its last."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn a plain dictionary into the tower's configuration."""
        if not isinstance(self.vision_config, CLIPVisionConfig):
            self.vision_config = CLIPVisionConfig(**(self.vision_config or _PUBLISHED_TOWER))
        super().__post_init__(**kwargs)


class Phi3VImageEmbedding(nn.Module):
    """Pictures as tokens of the decoder: tower, 2x2 merge, separators, projector."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        tower: Any = config.vision_config
        merged = 4 * tower.hidden_size
        self.feature_layer = config.feature_layer
        self.side = tower.image_size // tower.patch_size // 2
        """Tokens along the edge of a crop."""
        self.img_processor = nn.ModuleDict({"vision_model": CLIPVisionModel._from_config(tower)})
        self.img_projection = nn.Sequential(
            nn.Linear(merged, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, merged))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, merged))

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Pictures one after the other: [tokens of all, hidden].

        `pixel_values` [pictures, 1 + crops, 3, side, side], the view of the whole first, padded
        with zeros to the most crops; `image_sizes` [pictures, 2] height and width in pixels of
        what was cut into crops.
        """
        tower: Any = self.img_processor["vision_model"]
        edge = pixel_values.shape[-1]
        shapes = [(int(h) // edge, int(w) // edge) for h, w in image_sizes]
        views = [view[: 1 + h * w] for view, (h, w) in zip(pixel_values, shapes, strict=True)]
        seen = tower(torch.cat(views).to(tower.dtype), output_hidden_states=True)
        # Without the class token.
        features = self._merged(seen.hidden_states[self.feature_layer][:, 1:])
        parts = []
        for (height, width), one in zip(
            shapes, features.split([len(view) for view in views]), strict=True
        ):
            whole, crops = one[:1], one[1:]
            parts += [
                in_rows(crops, height, width, self.sub_GN),
                self.glb_GN[0],
                in_rows(whole, 1, 1, self.sub_GN),
            ]
        tokens: Tensor = self.img_projection(torch.cat(parts))
        return tokens

    def _merged(self, patches: Tensor) -> Tensor:
        """[views, patches, dim] -> [views, side, side, 4 dim], each token from 2x2 patches."""
        side, dim = self.side, patches.shape[-1]
        grid = patches.view(-1, side, 2, side, 2, dim).transpose(2, 3)
        return grid.reshape(-1, side, side, 4 * dim)


def in_rows(views: Tensor, height: int, width: int, separator: Tensor) -> Tensor:
    """Views [height * width, side, side, dim] as one picture's rows, a separator behind each.

    [tokens, dim], row by row over the whole picture; `separator` [1, 1, 1, dim].
    """
    side, dim = views.shape[-2:]
    grid = views.view(height, width, side, side, dim).transpose(1, 2)
    rows = grid.reshape(height * side, width * side, dim)
    ends = separator[0].expand(height * side, 1, dim)
    return torch.cat([rows, ends], dim=1).flatten(0, 1)


class Phi3VModel(Phi3Model):
    """The decoder with pictures among its tokens."""

    config: Phi3VConfig

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.vision_embed_tokens = Phi3VImageEmbedding(config)
        self.post_init()

    def forward(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As `Phi3Model`; `pixel_values` and `image_sizes` as `Phi3VImageEmbedding` takes them."""
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
            there: Tensor = input_ids == self.config.image_token_id
            # Later steps of generation hold no picture's place.
            if pixel_values is not None and there.any():
                seen = self.vision_embed_tokens(pixel_values, image_sizes)
                if len(seen) != int(there.sum()):
                    raise ValueError(
                        f"the pictures are {len(seen)} tokens, the prompt has room for "
                        f"{int(there.sum())}"
                    )
                seen = seen.to(inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(there.unsqueeze(-1), seen)
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)


class Phi3VForCausalLM(Phi3ForCausalLM):
    """Phi-3.5-vision, with its head."""

    config: Phi3VConfig
    config_class = Phi3VConfig
    # What other versions of the reference saved beside the weights.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012  # as the base class declares it
        r"vision_embed_tokens\.wte\.",
        r"embeddings\.position_ids$",
    ]

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.model = Phi3VModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: Any = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As `Phi3ForCausalLM`; named here, because generation passes on what a model names."""
        seen = {"pixel_values": pixel_values, "image_sizes": image_sizes}
        return super().forward(input_ids=input_ids, **seen, **kwargs)


AutoConfig.register("phi3_v", Phi3VConfig, exist_ok=True)
AutoModelForCausalLM.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)
AutoModelForImageTextToText.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)
