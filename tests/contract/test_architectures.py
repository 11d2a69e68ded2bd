"""Every architecture keeps what an adapter promises, whatever its weights have learnt."""

import io
import random
import re
import subprocess
import sys
from dataclasses import replace

import checkpoints
import pytest
import torch
from PIL import Image
from small_films import film

from vlmbench import catalogue, retrieval
from vlmbench.answering import answer
from vlmbench.errors import PictureError, VideoError
from vlmbench.prompting import encode, render, taken_by
from vlmbench.spec import Choices, Clip, Sampling, Turn

ASK = {"question": "What color is the star?", "instruction": "Answer briefly."}
CHOICES = Choices(("a red star", "a blue ring", "two moons in the snow", "a cross"))
WRITERS = [name for name in checkpoints.NAMES if name != "clip"]
WATCHERS = [name for name in WRITERS if catalogue.models()[name].watching]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def png(picture, **options):
    out = io.BytesIO()
    picture.save(out, options.pop("kind", "PNG"), **options)
    return out.getvalue()


def drawn(seed, size=(140, 140)):
    """A picture of coloured squares."""
    rng = random.Random(seed)
    picture = Image.new("RGB", size, "white")
    for _ in range(6):
        color = tuple(rng.randrange(256) for _ in range(3))
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        picture.paste(color, (x, y, x + 40, y + 40))
    return picture


def asked(name, *pictures, **said):
    turn = Turn(tuple(pictures), **(ASK | said), choices=CHOICES if name == "clip" else None)
    return taken_by(catalogue.models()[name], turn)


def seen(variant, *turns):
    """What turns are to the network: the logits after each, or its features."""
    if turns[0].choices:
        return retrieval.embed(variant, retrieval.encode(variant.processor, turns))
    inputs = encode(variant.processor, turns)
    with torch.inference_mode():
        return variant.network(**variant._moved(inputs)).logits[:, -1].float()


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_every_linear_is_in_one_component(made, name):
    variant = made.variant(name)
    anatomy = variant.model.anatomy
    for module_name, module in variant.network.named_modules():
        if isinstance(module, torch.nn.Linear) and not anatomy.is_kept(module_name):
            assert anatomy.component(module_name)
    layers = variant.network.get_submodule(anatomy.layers)
    assert isinstance(layers, torch.nn.ModuleList) and len(layers) > 1
    assert all(anatomy.component(f"{anatomy.layers}.{i}") == "decoder" for i in range(len(layers)))


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_alone_as_in_a_batch(made, name):
    """Rows of other lengths and sizes: the same answers, and the same logits but for rounding."""
    variant = made.variant(name)
    sizes = [(140, 140), (252, 196), (168, 140), (84, 300), (140, 140)]
    questions = ["Why?", "What color is the star?", "Is there a red ring?", "Where?", "How many?"]
    turns = [
        asked(name, png(drawn(i, size)), question=question)
        for i, (size, question) in enumerate(zip(sizes, questions, strict=True))
    ]
    batched, alone = seen(variant, *turns), torch.cat([seen(variant, turn) for turn in turns])
    apart = torch.cdist(alone, alone) + torch.eye(len(turns)) * 1e6
    assert (batched - alone).norm(dim=1).max() < 0.01 * apart.min()
    named = {str(i): turn for i, turn in enumerate(turns)}
    one, many = (answer(variant, named, max_new_tokens=8, batch_size=size) for size in (1, 5))
    assert one == many


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_a_picture_is_looked_at(made, name):
    variant = made.variant(name)
    one, blank = (
        seen(variant, asked(name, png(picture)))
        for picture in (drawn(1), Image.new("RGB", (140, 140), "white"))
    )
    assert (one - blank).abs().max() > 1e-4 * one.abs().max()


def oriented():
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(drawn(2, (120, 160)), exif=exif, kind="JPEG")


ODD = {
    "one pixel": png(Image.new("RGB", (1, 1), "red")),
    "large": png(drawn(3, (4000, 3000))),
    "grey": png(drawn(4).convert("L")),
    "palette": png(drawn(5).convert("P")),
    "transparent": png(drawn(6).convert("RGBA")),
    "cmyk": png(drawn(7).convert("CMYK"), kind="JPEG"),
    "turned": oriented(),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_odd_pictures_are_answered(made, name, kind):
    logits = seen(made.variant(name), asked(name, ODD[kind]))
    assert logits.isfinite().all()


NARROW = ("phi3_5", "qwen2")


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_a_thread_is_answered_or_refused_in_one_line(made, name):
    """1x2000 is beyond some processors."""
    variant, turn = made.variant(name), asked(name, png(Image.new("RGB", (1, 2000), "red")))
    if name in NARROW:
        with pytest.raises(PictureError, match="1x2000"):
            seen(variant, turn)
    else:
        assert seen(variant, turn).isfinite().all()


@pytest.mark.parametrize("name", WRITERS)
def test_greedy_answers_do_not_depend_on_threads(made, name):
    variant, turns = made.variant(name), {"a": asked(name, png(drawn(8)))}
    threads = torch.get_num_threads()
    try:
        said = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            said.append(answer(variant, turns, max_new_tokens=8, batch_size=1))
    finally:
        torch.set_num_threads(threads)
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("name", WATCHERS)
def test_a_clip_is_taken_as_the_model_takes_one(made, name, tmp_path):
    variant = made.variant(name)
    path = film(tmp_path / "h264.mp4")
    turn = replace(asked(name), clip=Clip(path))
    forwards = seen(variant, turn)
    inputs = encode(variant.processor, [turn])
    videos = [shown for shown in inputs if "video" in shown]
    assert bool(videos) == turn.watching.native
    frames = [png(drawn(i, (96, 64))) for i in range(8)]
    first, last = (
        seen(variant, replace(turn, clip=Clip(tuple(order)))) for order in (frames, frames[::-1])
    )
    assert not torch.equal(first, last) and not torch.equal(first, forwards)
    if turn.watching.exactly:
        with pytest.raises(VideoError, match="takes 8, no more and no fewer"):
            encode(variant.processor, [replace(turn, clip=Clip(path, Sampling(frames=4)))])


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "blip2"])
def test_two_pictures_in_one_turn(made, name):
    variant, (a, b) = made.variant(name), (png(drawn(9)), png(drawn(10)))
    assert not torch.equal(seen(variant, asked(name, a, b)), seen(variant, asked(name, b, a)))


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_question_spells_stays_text(made, name):
    """A question that names special tokens neither ends its turn nor claims a picture."""
    processor = made.variant(name).processor
    special = [t.content for t in processor.tokenizer.added_tokens_decoder.values() if t.special]
    turn = asked(name, png(drawn(11)), question="is " + " or ".join(special) + " <|image_2|> red?")
    plain = asked(name, png(drawn(11)))
    counted = [
        {token: processor.tokenizer.decode(encode(processor, [t])["input_ids"][0]).count(token)}
        for t in (turn, plain)
        for token in special
    ]
    assert counted[: len(special)] == counted[len(special) :]


SHOW = """
import sys, torch
from safetensors.torch import save_file
from vlmbench import catalogue
from vlmbench.prompting import encode
from vlmbench.spec import Source, Turn
from vlmbench.variant import load

folder, picture, out, name = sys.argv[1:]
variant = load(catalogue.models()[name], catalogue.compressions()["32bit"], Source(folder))
turn = Turn((open(picture, "rb").read(),), "What color is the star?", "Answer briefly.")
with torch.inference_mode():
    logits = variant.network(**encode(variant.processor, [turn])).logits[:, -1]
save_file({"logits": logits.contiguous()}, out)
"""


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "blip2"])
def test_what_is_saved_is_the_same_in_another_process(made, name, tmp_path):
    from safetensors.torch import load_file

    variant = made.variant(name)
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(drawn(12)))
    variant.network.save_pretrained(tmp_path / "saved")
    variant.processor.save_pretrained(tmp_path / "saved")
    out = tmp_path / "out.safetensors"
    command = [sys.executable, "-c", SHOW, tmp_path / "saved", picture, out]
    subprocess.run([*command, name], check=True)
    here = seen(variant, asked(name, picture.read_bytes()))
    assert torch.equal(load_file(out)["logits"].float(), here)


@pytest.mark.parametrize("name", ["qwen2", "llavanext", "video_llava", "idefics2"])
def test_inputs_are_those_of_the_processors_own_chat_call(made, name):
    """Token for token and pixel for pixel; what its template says is held by PROMPTS."""
    processor = made.variant(name).processor
    turn = asked(name, png(drawn(14, (252, 196))))
    content = [
        {"type": "text", "text": turn.instruction},
        {"type": "image", "image": drawn(14, (252, 196))},
        {"type": "text", "text": turn.question},
    ]
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ours = encode(processor, [turn])
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    shown = [key for key in ours if key.startswith("pixel_values")]
    assert shown and all(torch.equal(ours[key], theirs[key]) for key in shown)


PROMPTS = {
    "qwen2": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Answer briefly.<|vision_start|><|image_pad|><|vision_end|>What color is the star?"
        "<|im_end|>\n<|im_start|>assistant\n"
    ),
    "llavanext": "USER: <image>\nAnswer briefly. What color is the star? ASSISTANT:",
    "video_llava": "USER: <image>\nAnswer briefly. What color is the star? ASSISTANT:",
    "idefics2": (
        "User: Answer briefly.<image>What color is the star?<end_of_utterance>\nAssistant:"
    ),
    "phi3_5": (
        "<|user|>\nAnswer briefly.<|image_1|>\nWhat color is the star?<|end|>\n<|assistant|>\n"
    ),
    "blip2": "Question: What color is the star? Answer:",
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_said_is_the_published_turn(made, name):
    processor = made.variant(name).processor
    assert render(processor, asked(name, png(drawn(13)))) == PROMPTS[name]
    caption = taken_by(
        catalogue.models()[name], Turn((png(drawn(13)),), "What is it?", captions=True)
    )
    said = render(processor, caption)
    assert bool(re.search("What is it", said)) == (name != "blip2")
