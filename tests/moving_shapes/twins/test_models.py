import pytest
import torch

from moving_shapes import MovingShapes
from moving_shapes.evaluate import measure
from moving_shapes.scenes.scene import COLORS, SHAPES
from moving_shapes.train.scene_pool import ScenePool, render_scene
from moving_shapes.twins.models import AutoregressiveAnswers, CausalRecompute, build_twin
from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration
from vidlada_hf.evaluation.decoding import prepare_inputs


@pytest.fixture(scope="module")
def parts():
    """Untrained, and with layers that say more than the embeddings, so that answers depend on what is attended to."""
    model, processor = build_twin(seed=3)
    for name, parameter in model.model.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data *= 6
    return model.eval(), processor


@pytest.fixture(scope="module")
def examples():
    return list(MovingShapes("validation", 4, num_frames=4, types=("color", "choice", "caption", "counting")))


@pytest.fixture(scope="module")
def inputs(parts, examples):
    """Questions of different lengths, so that all but one are padded."""
    return prepare_inputs(parts[1], [example.as_question() for example in examples], 4)


def test_the_tower_is_the_embedded_checkpoints_and_the_text_model_is_new(parts):
    model, trained = parts[0], VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT)
    stored = trained.state_dict()
    for name, tensor in model.state_dict().items():
        is_text = ".language_model." in name or name.startswith("lm_head")
        assert torch.equal(tensor, stored[name].float()) != is_text or "norm" in name, name


def test_the_tower_writes_in_the_embeddings_of_the_words(parts):
    model, processor = parts
    pool = ScenePool(model, 8, 8, (2,))
    drawn = {number: pool.draw(number) for number in range(8)}
    pool.encode({number: render_scene(scene, times) for number, (scene, _, times, _) in drawn.items()})
    words = model.get_input_embeddings().weight.detach()
    for names, column in ((SHAPES, 0), (COLORS, 3)):
        right = []
        for number in drawn:
            filled = pool[number].is_filled
            logits = (
                pool[number].features[torch.from_numpy(filled)].float()
                @ words[processor.tokenizer.convert_tokens_to_ids(list(names))].T
            )
            right += (logits.argmax(-1).numpy() == pool[number].labels[filled, column]).tolist()
        assert sum(right) > 0.8 * len(right)  # a shape may have changed its color


def test_a_causal_answer_is_denoised_from_llamas_logits(parts, examples):
    """One forward pass over prompt and canvas by transformers' causal Llama gives what the first step commits."""
    model, processor = parts
    inputs = prepare_inputs(processor, [examples[0].as_question()], 4)
    settings = {"max_new_tokens": 4, "max_denoising_steps": 1, "unmasking": "quota", "eos_token_id": []}
    output = model.generate(**inputs, cache_strategy=CausalRecompute(), **settings)[0, -4:]
    ids = torch.cat([inputs["input_ids"], torch.full((1, 4), model.config.mask_token_id)], 1)
    visual = {name: inputs[name] for name in ("pixel_values_videos", "num_frames_per_video")}
    with torch.no_grad():
        embedded = model.model.merge_features(ids, **visual)
        logits = AutoregressiveAnswers.of(model).llama(inputs_embeds=embedded).logits[0, -4:]
    logits[:, model.config.suppress_tokens] = -torch.inf
    assert torch.equal(output, logits.argmax(-1))
    assert not torch.equal(output, model.generate(**inputs, **settings)[0, -4:])


def test_causal_answers_of_a_batch_are_those_of_each_alone(parts, examples, inputs):
    model, processor = parts
    settings = {"max_new_tokens": 8, "unmasking": "threshold", "unmask_threshold": 0.3}
    together = model.generate(**inputs, cache_strategy=CausalRecompute(), **settings)[:, inputs["input_ids"].shape[1] :]
    for example, batched in zip(examples, together, strict=True):
        own = prepare_inputs(processor, [example.as_question()], 4)
        alone = model.generate(**own, cache_strategy=CausalRecompute(), **settings)[0, own["input_ids"].shape[1] :]
        assert torch.equal(alone, batched[: len(alone)])


def test_a_shared_video_is_refused(parts, inputs):
    with pytest.raises(ValueError, match="causal twin recomputes its whole prompt"):
        parts[0].generate(**inputs, cache_strategy=CausalRecompute(), share_video=True)


def test_autoregressive_answers_are_what_each_next_token_says(parts, examples, inputs):
    """With its key-value cache and in a padded batch, the answer is that of recomputing everything token by token."""
    model, processor = parts
    answers = AutoregressiveAnswers.of(model)
    batched = answers.generate(**inputs, max_new_tokens=5)[:, inputs["input_ids"].shape[1] :]
    ends = answers.llama.config.eos_token_id
    for example, own in zip(examples, batched, strict=True):
        alone = prepare_inputs(processor, [example.as_question()], 4)
        ids, visual = alone["input_ids"], {n: alone[n] for n in ("pixel_values_videos", "num_frames_per_video")}
        embedded, expected = model.model.merge_features(ids, **visual), []
        while len(expected) < 5 and not (expected and expected[-1] in ends):
            with torch.no_grad():
                logits = answers.llama(inputs_embeds=embedded).logits[0, -1]
            logits[model.config.suppress_tokens] = -torch.inf
            expected.append(int(logits.argmax()))
            embedded = torch.cat([embedded, model.get_input_embeddings()(torch.tensor([[expected[-1]]]))], 1)
        assert own[: len(expected)].tolist() == expected


def test_the_evaluation_asks_it_as_any_model(parts, examples):
    scores = measure(AutoregressiveAnswers.of(parts[0]), parts[1], examples, num_frames=4, max_new_tokens=4)
    assert scores["all"].questions == 4
