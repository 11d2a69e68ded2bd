"""LLaVA-NeXT-Video (LLaVA's blog, 2024-04-30): CLIP on views of a picture, a Llama decoder."""

from vlmbench.models import shipped
from vlmbench.spec import Anatomy, Model, Source, Watching

LLAVANEXT = Model(
    name="llavanext",
    sources={
        "embedded": shipped("llavanext"),
        "hub": Source("llava-hf/LLaVA-NeXT-Video-7B-hf"),
    },
    architecture="LlavaNextVideoForConditionalGeneration",
    anatomy=Anatomy(
        vision="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        layers="model.language_model.layers",
        head="lm_head",
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=32),
)
