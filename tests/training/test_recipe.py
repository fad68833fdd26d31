import pytest

from vidlada_hf.training.optimizer import PARTS
from vidlada_hf.training.recipe import Recipe, Stage

STAGE = {"name": "one", "rates": {"text": 1e-3}, "arguments": {"max_steps": 2}}
RECIPE = {"model": "folder", "output_dir": "runs/x", "stages": [STAGE]}


def test_a_recipe_round_trips(tmp_path):
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    recipe = Recipe.from_yaml(tmp_path / "recipe.yaml")
    assert recipe.stages[0].task == "conversations" and recipe.seed == 0
    assert Recipe.from_dict(recipe.as_dict()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ouput_dir": "x"}, "Unknown key `ouput_dir` in the recipe: did you mean `output_dir`?"),
        ({"stages": []}, "`stages` of the recipe must be a list of at least one stage"),
        ({"stages": [STAGE, STAGE]}, "Two stages of the recipe have the same name: one, one"),
        ({"stages": [{"task": "conversations"}]}, "stage 1 of the recipe lacks the key `name`"),
        ({"stages": [STAGE | {"arguements": {}}]}, "Unknown key `arguements` in stage 1 .* did you mean `arguments`"),
        ({"stages": [STAGE | {"rates": {"txt": 1}}]}, "Unknown key `txt` in `rates` of stage 'one'.*`text`"),
        ({"stages": [STAGE | {"rates": {"text": "1e-5"}}]}, "`text` in `rates` of stage 'one' is the text '1e-5'"),
        ({"stages": [STAGE | {"lora": {"r": "8"}}]}, "`r` in `lora` of stage 'one' is the text '8'"),
        ({"stages": [STAGE | {"options": None}]}, "`options` in stage 1 of the recipe is None: .* valid dictionary"),
        ({"stages": [STAGE | {"arguments": {"max_steps": "ten"}}]}, "`max_steps` in `arguments` .* 'ten': .* integer"),
        ({"stages": [STAGE | {"arguments": {"max_steps": "10"}}]}, "`max_steps` in .* is the text '10': write a"),
        ({"stages": STAGE}, "`stages` of the recipe must be a list"),
        ({"seed": "abc"}, "`seed` in the recipe is 'abc': .* valid integer"),
        ({"model": 8}, "`model` in the recipe is 8: .* valid string"),
        (
            {"stages": [STAGE | {"arguments": {"max_step": 1}}]},
            "Unknown key `max_step` in `arguments` of stage 'one'.*`max_steps`",
        ),
        ({"stages": [STAGE | {"arguments": {"output_dir": "x"}}]}, "Unknown key `output_dir` in `arguments`"),
        ({"stages": [STAGE | {"arguments": {"lr_scheduler_type": "nope"}}]}, "nope is not a valid SchedulerType"),
        ({"stages": [STAGE | {"arguments": {"learning_rate": 1e-3}}]}, "`learning_rate` in .* say it in `rates`"),
        ({"stages": [STAGE | {"arguments": {"save_only_model": True}}]}, "`save_only_model` .* could not go on"),
        ({"stages": [STAGE | {"arguments": {"train_sampling_strategy": "group_by_len"}}]}, "must be one of random,"),
        (
            {"stages": [STAGE | {"rates": dict.fromkeys(PARTS, 0)}]},
            "Nothing is left to train in stage 'one': all",
        ),
        ({"stages": [STAGE | {"lora": {"r": 8}, "rates": {"text": 0}}]}, "'one': the rate `text`, .* is 0"),
        ({"stages": [STAGE | {"arguments": {"per_device_train_batch_size": 0}}]}, "must be at least 1, got 0"),
        ({"stages": [STAGE | {"batch_size": -4}]}, "`batch_size` of stage 'one' must be at least 1, got -4"),
        ({"stages": [STAGE | {"interpolation": 0}]}, "`interpolation` of stage 'one' must be above 0 .*, got 0"),
        ({"stages": [STAGE | {"lora": {"r": 8}, "interpolation": 0.5}]}, "'one' has `lora` and `interpolation`: lower"),
    ],
)
def test_mistakes_are_named_where_they_are_written(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(RECIPE | change)


def stage_of(batch_size, **arguments) -> Stage:
    return Stage("one", rates={"text": 1e-3}, batch_size=batch_size, arguments=arguments)


@pytest.mark.parametrize(
    ("given", "processes", "size", "accumulated"),
    [
        ({}, 1, 32, None),
        ({}, 2, 16, None),
        ({"per_device_train_batch_size": 4}, 2, 4, 4),
        ({"gradient_accumulation_steps": 8}, 4, 1, 8),
    ],
)
def test_processes_and_micro_batches_share_a_steps_examples(given, processes, size, accumulated):
    shared = stage_of(32, **given).shared_arguments(processes)
    assert (
        shared.pop("per_device_train_batch_size") == size
        and shared.pop("gradient_accumulation_steps", None) == accumulated
    )
    assert shared == {}


def test_a_steps_examples_have_to_be_shared_evenly():
    assert stage_of(0, max_steps=3).shared_arguments(5) == {"max_steps": 3}
    with pytest.raises(ValueError, match="`batch_size` 32 of stage 'one' is not divisible by 3 processes"):
        stage_of(32).shared_arguments(3)
    with pytest.raises(ValueError, match="by 2 processes and `per_device_train_batch_size` 5"):
        stage_of(32, per_device_train_batch_size=5).shared_arguments(2)
    both = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    with pytest.raises(ValueError, match="has `batch_size` and both .*: leave one out"):
        stage_of(32, **both).shared_arguments(2)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no recipe"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"must be a mapping of keys to values, got \['a', 'b'\]"):
        Recipe.from_yaml(tmp_path / "list.yaml")
    for content in (b"a: [", b"a: caf\xe9"):
        (tmp_path / "broken.yaml").write_bytes(content)
        with pytest.raises(ValueError, match="broken.yaml is no YAML"):
            Recipe.from_yaml(tmp_path / "broken.yaml")
