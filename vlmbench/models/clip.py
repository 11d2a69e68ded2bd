"""CLIP (arXiv 2103.00020): a ViT and a text encoder that meet; it answers by choosing."""

from vlmbench.anatomy import Anatomy, Feed
from vlmbench.models import shipped
from vlmbench.spec import Model, Source

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
TEXT = (
    Feed("layer_norm1", _QKV, "self_attn"),
    Feed("self_attn.v_proj", ("self_attn.out_proj",), "self_attn.out_proj"),
    # What feeds fc2 comes through a GELU, which lets no factor pass.
    Feed("layer_norm2", ("mlp.fc1",), "mlp"),
)

CLIP = Model(
    name="clip",
    sources={"embedded": shipped("clip"), "hub": Source("openai/clip-vit-large-patch14")},
    architecture="CLIPModel",
    anatomy=Anatomy(
        vision="vision_model",
        projector=("visual_projection", "text_projection"),
        decoder="text_model",
        layers="text_model.encoder.layers",
        head=(),
        feeds=TEXT,
        smoothing=0.5,
    ),
    datasets=("flickr30k_retrieval", "flickr30k_search"),
)
