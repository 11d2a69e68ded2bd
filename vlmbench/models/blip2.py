"""BLIP-2 (arXiv 2301.12597): a ViT, a Q-Former, an OPT decoder."""

from vlmbench.anatomy import Anatomy, Feed
from vlmbench.models import shipped
from vlmbench.spec import Model, Source

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OPT = (
    Feed("self_attn_layer_norm", _QKV, "self_attn"),
    Feed("self_attn.v_proj", ("self_attn.out_proj",), "self_attn.out_proj"),
    Feed("final_layer_norm", ("fc1",), "fc1"),
    # A ReLU lets positive factors pass.
    Feed("fc1", ("fc2",), "fc2"),
)

BLIP2 = Model(
    name="blip2",
    sources={"embedded": shipped("blip2"), "hub": Source("Salesforce/blip2-opt-2.7b")},
    architecture="Blip2ForConditionalGeneration",
    anatomy=Anatomy(
        vision="vision_model",
        projector="language_projection",
        decoder="language_model.model.decoder",
        layers="language_model.model.decoder.layers",
        head="language_model.lm_head",
        kept=("qformer",),
        feeds=OPT,
        smoothing=0.5,
    ),
    datasets=("vqav2", "flickr30k"),
    # It was trained to go on from a picture: a caption is not asked for.
    captions_unasked=True,
    template=(
        "{% set asked = messages[-1]['content'] | selectattr('type', 'equalto', 'text')"
        " | map(attribute='text') | list | last %}"
        "{% if asked %}Question: {{ asked }} Answer:{% endif %}"
    ),
)
