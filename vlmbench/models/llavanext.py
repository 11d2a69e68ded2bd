"""LLaVA-NeXT-Video (arXiv 2404.16994): a CLIP tower on views of a picture, a Llama decoder."""

from vlmbench.spec import Anatomy, Model, Source, Watching

LLAVANEXT = Model(
    name="llavanext",
    sources={"hub": Source("llava-hf/LLaVA-NeXT-Video-7B-hf")},
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
