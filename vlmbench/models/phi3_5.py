"""Phi-3.5-vision (arXiv 2404.14219): a CLIP tower on crops of a picture, the Phi-3 decoder."""

from vlmbench.anatomy import Anatomy, Feed
from vlmbench.models import shipped
from vlmbench.spec import Model, Source, Watching

PHI3 = (
    Feed("input_layernorm", ("self_attn.qkv_proj",), "self_attn"),
    Feed("self_attn.qkv_proj", ("self_attn.o_proj",), "self_attn.o_proj"),
    Feed("post_attention_layernorm", ("mlp.gate_up_proj",), "mlp"),
    Feed("mlp.gate_up_proj", ("mlp.down_proj",), "mlp.down_proj"),
)

PHI3_5 = Model(
    name="phi3_5",
    sources={
        "embedded": shipped("phi3_5"),
        "hub": Source("microsoft/Phi-3.5-vision-instruct"),
    },
    architecture="Phi3VForCausalLM",
    anatomy=Anatomy(
        vision="model.vision_embed_tokens.img_processor",
        projector="model.vision_embed_tokens.img_projection",
        decoder="model",
        layers="model.layers",
        head="lm_head",
        feeds=PHI3,
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=16, native=False),
)
