"""What can go wrong between a pixel and a verdict, done on purpose to a bench."""

import copy
import random
from dataclasses import replace

import torch

from vlmbench import answering, prompting
from vlmbench.answering import answer
from vlmbench.errors import PictureError
from vlmbench.prompting import encode
from vlmbench.samples import Samples
from vlmbench.spec import Sampling
from vlmbench.variant import Variant


def loaded(bench):
    """The variant of the one cell."""
    (cell,) = bench.cells()
    return bench.variant(cell.model, cell.compression)


def decoder(bench):
    return loaded(bench).network.model.language_model


def change_dataset(bench, **fields):
    (dataset,) = bench.datasets
    changed = replace(dataset, **fields)
    bench.datasets = [changed]


def change_samples(bench, change):
    (dataset,) = bench.datasets
    samples = bench.samples(dataset)
    bench._samples[dataset.name] = Samples(tuple(change(list(samples.items))), samples.left_out)


# What the model sees.


def blind(bench, patch):
    """The vision tower is skipped."""
    visual = loaded(bench).network.model.visual
    forward = visual.forward

    def nothing(*args, **kwargs):
        seen = forward(*args, **kwargs)
        seen.pooler_output.zero_()
        return seen

    patch.setattr(visual, "forward", nothing)


def swapped_pictures(bench, patch):
    """Neighbours in a batch get one another's pictures."""

    def swapped(processor, turns):
        pictures = [turn.pictures for turn in turns]
        for i in range(0, len(turns) - 1, 2):
            pictures[i], pictures[i + 1] = pictures[i + 1], pictures[i]
        moved = [replace(t, pictures=p) for t, p in zip(turns, pictures, strict=True)]
        return encode(processor, moved)

    patch.setattr(answering, "encode", swapped)


def padded_right(bench, patch):
    """A batch is padded on the wrong side."""

    def padded(processor, turns):
        batch = encode(processor, turns)
        for row, mask in enumerate(batch["attention_mask"]):
            shift = -int((mask == 0).sum())
            for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
                batch[name][row] = batch[name][row].roll(shift)
        return batch

    patch.setattr(answering, "encode", padded)


def grey_pictures(bench, patch):
    """Colours are lost on the way."""
    decode = prompting.decode_picture
    patch.setattr(
        prompting, "decode_picture", lambda data: decode(data).convert("L").convert("RGB")
    )


def frames_out_of_order(bench, patch):
    """A clip's frames are shown last first."""
    watch = prompting.watch

    def backwards(turn):
        frames = watch(turn)
        return frames and replace(frames, pictures=frames.pictures[::-1].copy())

    patch.setattr(prompting, "watch", backwards)


def fewer_frames(bench, patch):
    """Four frames of a clip are shown in place of eight."""
    four = Sampling(frames=4)
    change_samples(
        bench, lambda samples: [replace(s, clip=replace(s.clip, sampling=four)) for s in samples]
    )


# What it is asked, and how it answers.


def other_instruction(bench, patch):
    change_dataset(bench, instruction="Answer at length.")


def other_template(bench, patch):
    processor = loaded(bench).processor
    patch.setattr(processor, "chat_template", processor.chat_template + " ")


def shorter_limit(bench, patch):
    change_dataset(bench, max_new_tokens=2)


def cut_short(bench, patch):
    """Generation ends after two tokens, behind the protocol's back."""
    generate = Variant.generate
    patch.setattr(
        Variant,
        "generate",
        lambda self, inputs, max_new_tokens: generate(self, inputs, max_new_tokens=2),
    )


def sampling(bench, patch):
    """Answers are drawn at random."""
    patch.setattr(loaded(bench).network.generation_config, "do_sample", True)


# What it is.


def dropped_layer(bench, patch):
    layers = decoder(bench).layers
    del layers[2]
    for i, layer in enumerate(layers):
        layer.self_attn.layer_idx = i


def noisy_matrix(bench, patch):
    """Noise of one standard deviation on one matrix."""
    weight = decoder(bench).layers[1].mlp.gate_proj.weight.data
    weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std()


# What it is judged by.


def shuffled_references(bench, patch):
    def shuffled(samples):
        references = [s.references for s in samples]
        random.Random(0).shuffle(references)
        return [replace(s, references=r) for s, r in zip(samples, references, strict=True)]

    change_samples(bench, shuffled)


def half_of_the_rows(bench, patch):
    change_samples(bench, lambda samples: samples[::2])


def bare_metric(bench, patch):
    """VQA accuracy without its normalisation."""
    metric = bench.entries.metrics["vqa_accuracy"]

    def bare(answers, references):
        return [min(1.0, r.count(a.upper()) / 3) for a, r in zip(answers, references, strict=True)]

    metrics = {**bench.entries.metrics, metric.name: replace(metric, score=bare)}
    bench.entries = replace(bench.entries, metrics=metrics)


def other_encoder_layer(bench, patch):
    """BERTScore from the encoder's second layer, under the same version."""
    from vlmbench.metrics import bertscore

    load_whole = bertscore.load

    def shallow(encoder):
        model, tokenizer = load_whole(encoder)
        model = copy.deepcopy(model)
        model.encoder.layer = model.encoder.layer[:2]
        return model, tokenizer

    patch.setattr(bertscore, "load", shallow)
    patch.setattr(bertscore, "_embed_references", bertscore._embed_references.__wrapped__)


# What goes wrong on the way.


def failing(count):
    def fail(bench, patch):
        (dataset,) = bench.datasets
        broken = {
            s.question + str(len(s.pictures[0])) for s in bench.samples(dataset).items[:count]
        }

        def sometimes(processor, turns):
            if any(t.question + str(len(t.pictures[0])) in broken for t in turns):
                raise PictureError("the picture is broken")
            return encode(processor, turns)

        patch.setattr(answering, "encode", sometimes)

    return fail


def swallowed(bench, patch):
    """Ten answers that could not be made are passed off as empty."""

    def silent(*args, **kwargs):
        made = answer(*args, **kwargs)
        for name in list(made)[:10]:
            made[name] = replace(made[name], text="")
        return made

    patch.setattr("vlmbench.evaluate.answer", silent)
