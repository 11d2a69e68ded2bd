"""CLIP (arXiv 2103.00020): a ViT and a text encoder that meet; it answers by choosing."""

from vlmbench.spec import Anatomy, Model, Source

CLIP = Model(
    name="clip",
    sources={"hub": Source("openai/clip-vit-large-patch14")},
    architecture="CLIPModel",
    anatomy=Anatomy(
        vision="vision_model",
        projector=("visual_projection", "text_projection"),
        decoder="text_model",
        layers="text_model.encoder.layers",
        head=(),
    ),
    datasets=("flickr30k_retrieval", "flickr30k_search"),
)
