"""Video-LLaVA (arXiv 2311.10122): a CLIP tower for pictures, one for frames, a Llama decoder."""

from vlmbench.models import shipped
from vlmbench.spec import Anatomy, Model, Source, Watching

VIDEO_LLAVA = Model(
    name="video_llava",
    sources={
        "embedded": shipped("video_llava"),
        "hub": Source("LanguageBind/Video-LLaVA-7B-hf"),
    },
    architecture="VideoLlavaForConditionalGeneration",
    anatomy=Anatomy(
        vision=("model.image_tower", "model.video_tower"),
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        layers="model.language_model.layers",
        head="lm_head",
    ),
    datasets=("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa"),
    watching=Watching(most=8, exactly=8),
    template=(
        "{% for message in messages %}{{ message['role'].upper() }}: "
        "{% for kind in ['image', 'video'] %}"
        "{% for part in message['content'] if part['type'] == kind %}<{{ kind }}>\n{% endfor %}"
        "{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}"
        "{{ part['text'] }} {% endfor %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
)
