"""Qwen2-VL (arXiv 2409.12191)."""

from vlmbench.models import shipped
from vlmbench.spec import Anatomy, Model, Source, Watching

QWEN2 = Model(
    name="qwen2",
    sources={
        "embedded": shipped("qwen2"),
        "hub": Source(
            "Qwen/Qwen2-VL-2B-Instruct", revision="895c3a49bc3fa70a340399125c650a463535e71c"
        ),
    },
    architecture="Qwen2VLForConditionalGeneration",
    anatomy=Anatomy(
        vision="model.visual",
        projector="model.visual.merger",
        decoder="model.language_model",
        layers="model.language_model.layers",
        head="lm_head",
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=768),
)
