"""Pictures and prompts for Phi-3.5-vision: the HD transform, and places for pictures' tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from vlmbench.architectures.phi3_v import Phi3VConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGE_TOKEN = "<|image|>"
_PLACE = re.compile(r"<\|image_(\d+)\|>")


class Phi3VImageProcessor(BaseImageProcessor):
    """Cuts a picture into at most `num_crops` squares of `crop_size`, and views it whole as one.

    A picture that is not alone in its text is cut into at most `crops_of_several`, where given:
    the model's card advises 16 crops for one picture and 4 for several.
    """

    model_input_names = ["pixel_values", "image_sizes"]  # noqa: RUF012  # as the base has it

    def __init__(
        self,
        num_crops: int = 4,
        crop_size: int = 336,
        crops_of_several: int | None = None,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_crops, self.crop_size = num_crops, crop_size
        self.crops_of_several = crops_of_several or num_crops
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(
        self, images: Any, *args: Any, alone: Sequence[bool] | None = None, **kwargs: Any
    ) -> BatchFeature:
        """`pixel_values` [pictures, 1 + crops, 3, side, side] and `image_sizes` [pictures, 2].

        `alone`: of each picture, whether it is the only one of its text; None: all are.

        Raises:
            ValueError: a picture is so narrow that scaled to a crop's width it has no height.
        """
        crops = [self.num_crops if one else self.crops_of_several for one in alone or ()]
        crops = crops or [self.num_crops] * len(images)
        scaled = [
            self._scaled(image.convert("RGB"), most)
            for image, most in zip(images, crops, strict=True)
        ]
        views = [self._views(image) for image in scaled]
        most = max(len(view) for view in views)
        padded = [nn.functional.pad(v, (0, 0, 0, 0, 0, 0, 0, most - len(v))) for v in views]
        sizes = torch.tensor([[image.height, image.width] for image in scaled])
        return BatchFeature({"pixel_values": torch.stack(padded), "image_sizes": sizes})

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a picture that is cut from `height` x `width` pixels."""
        side = self.crop_size // 28
        rows, columns = height // self.crop_size, width // self.crop_size
        return (rows * columns + 1) * side**2 + 1 + (rows + 1) * side

    def _scaled(self, image: Image.Image, crops: int) -> Image.Image:
        """Scaled to at most `crops` in its own proportions, filled up with white."""
        if image.width < image.height:
            turned = self._scaled(image.transpose(Image.Transpose.TRANSPOSE), crops)
            return turned.transpose(Image.Transpose.TRANSPOSE)
        edge, ratio = self.crop_size, image.width / image.height
        # A very wide picture is one row of as many crops as allowed.
        scale = max(s for s in range(1, crops + 1) if s * math.ceil(s / ratio) <= crops)
        width = scale * edge
        height = int(width / ratio)
        if height < 1:
            raise ValueError(f"a picture of {image.width}x{image.height} has no height left")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        sheet = Image.new("RGB", (width, math.ceil(height / edge) * edge), (255, 255, 255))
        sheet.paste(image, (0, (sheet.height - height) // 2))
        return sheet

    def _views(self, image: Image.Image) -> Tensor:
        """[1 + crops, 3, side, side]: the whole, then the crops row by row."""
        edge = self.crop_size
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.image_mean, self.image_std))
        pixels = (pixels - mean) / std
        whole = nn.functional.interpolate(pixels[None], size=(edge, edge), mode="bicubic")
        rows, columns = image.height // edge, image.width // edge
        crops = pixels.view(3, rows, edge, columns, edge).permute(1, 3, 0, 2, 4)
        return torch.cat([whole, crops.reshape(-1, 3, edge, edge)])


class Phi3VProcessor(ProcessorMixin):
    """Prompts with `<|image_1|>`, `<|image_2|>`, ... and the pictures that belong there."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        images: Sequence[Image.Image] | None = None,
        text: Sequence[str] = (),
        **options: Any,
    ) -> BatchFeature:
        """`input_ids`, `attention_mask`, and what `Phi3VImageProcessor` makes of the pictures.

        `images`: those of all texts, in order.

        Raises:
            ValueError: a text does not name its pictures 1, 2, ..., or they are too many or few.
        """
        named = [len(_PLACE.findall(one)) for one in text]
        alone = [count == 1 for count in named for _ in range(count)]
        if len(images or ()) != len(alone):
            raise ValueError(f"the texts name {len(alone)} pictures, {len(images or ())} are given")
        seen = self.image_processor(images, alone=alone) if images else BatchFeature({})
        counts = [self.image_processor.tokens(h, w) for h, w in seen.get("image_sizes", [])]
        left = iter(counts)
        filled = [self._filled(one, left) for one in text]
        return BatchFeature({**self.tokenizer(filled, **options), **seen})

    def apply_chat_template(  # type: ignore[override]  # of one conversation
        self, conversation: Sequence[Any], **options: Any
    ) -> Any:
        """The tokenizer's own template, pictures and texts of a turn written out in order."""
        said = [{**turn, "content": _written(turn["content"])} for turn in conversation]
        template = self.chat_template or self.tokenizer.chat_template
        return self.tokenizer.apply_chat_template(said, chat_template=template, **options)

    def _filled(self, text: str, counts: Iterator[int]) -> str:
        """A text with as many places as each of its pictures has tokens."""
        named = [int(number) for number in _PLACE.findall(text)]
        if named != list(range(1, len(named) + 1)):
            raise ValueError(f"pictures are named 1, 2, ... in order, this text has {named}")
        return _PLACE.sub(lambda _: IMAGE_TOKEN * next(counts), text)


def _written(content: Any) -> str:
    """A turn's parts as one text."""
    if isinstance(content, str):
        return content
    text, pictures = "", 0
    for part in content:
        if part["type"] == "image":
            pictures += 1
            text += f"<|image_{pictures}|>\n"
        else:
            # What spells a picture's place stays text.
            text += part["text"].replace("<|image_", "<| image_")
    return text


AutoImageProcessor.register(
    Phi3VConfig, image_processor_classes={"pil": Phi3VImageProcessor}, exist_ok=True
)
AutoProcessor.register(Phi3VConfig, Phi3VProcessor, exist_ok=True)
