"""Phi-3.5-vision (arXiv 2404.14219): a CLIP tower on crops of a picture, the Phi-3 decoder."""

from vlmbench.spec import Anatomy, Model, Source, Watching

PHI3_5 = Model(
    name="phi3_5",
    sources={"hub": Source("microsoft/Phi-3.5-vision-instruct")},
    architecture="Phi3VForCausalLM",
    anatomy=Anatomy(
        vision="model.vision_embed_tokens.img_processor",
        projector="model.vision_embed_tokens.img_projection",
        decoder="model",
        layers="model.layers",
        head="lm_head",
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=16, native=False),
)
