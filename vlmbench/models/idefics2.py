"""Idefics2 (arXiv 2405.02246): SigLIP in native proportions, a perceiver, a Mistral decoder."""

from vlmbench.models import shipped
from vlmbench.spec import Anatomy, Model, Source, Watching

IDEFICS2 = Model(
    name="idefics2",
    sources={"embedded": shipped("idefics2"), "hub": Source("HuggingFaceM4/idefics2-8b")},
    architecture="Idefics2ForConditionalGeneration",
    anatomy=Anatomy(
        vision="model.vision_model",
        projector="model.connector",
        decoder="model.text_model",
        layers="model.text_model.layers",
        head="lm_head",
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=8, native=False),
)
