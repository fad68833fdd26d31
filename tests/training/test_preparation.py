"""Mistakes in a recipe: reported once, before anything runs or is written."""

import pytest
import yaml

from tests.training.helpers import DATA, recipe
from vidlada_hf.training.launch import launch
from vidlada_hf.training.memory_estimate import plan
from vidlada_hf.training.preparation import prepare
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.run_state import claim


def changed(folder, **stage) -> Recipe:
    """The recipe with changes to its second stage."""
    content = recipe(folder / "run").as_dict()
    content["stages"][1] |= stage
    return Recipe.from_dict(content)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        # options of the task and of the source
        ({"options": {"data": DATA, "frame_cach": "x"}}, "Unknown key `frame_cach` .* did you mean `frame_cache`"),
        ({"options": {}}, "lacks the key `data`"),
        ({"options": {"dat": DATA}}, "Unknown key `dat` in `options` of the task ConversationTask: did you"),
        ({"options": {"data": {}}}, "need `data` with a `source`"),
        ({"options": {"data": 5}}, "`data` in .* is 5: Input should be"),
        ({"options": {"data": DATA | {"length": 0}}}, "`length` in .* is 0: .* greater than or equal to 1"),
        ({"options": {"data": DATA | {"lenght": 1}}}, "Unknown key `lenght` in `data` of the source .*`length`"),
        ({"options": {"data": DATA | {"long": 2}}}, "`long` in .* is 2: .* less than or equal to 1"),
        ({"options": {"data": {"source": "llava", "path": 3}}}, "`path` in `data` of the source 'llava' is 3: .*"),
        ({"options": {"data": DATA, "bad_videos": "ignore"}}, "`bad_videos` in .* is 'ignore': .* 'skip' or 'stop'"),
        ({"options": {"data": DATA, "time_sampling": "even"}}, "`time_sampling` in .* 'independent', 'antithetic' or"),
        ({"options": {"data": DATA, "labels": {"max_length": "all"}}}, "`max_length` in `labels` is 'all': .* integer"),
        ({"options": {"data": DATA, "labels": {"max_length": 0}}}, "`max_length` in `labels` is 0"),
        ({"options": {"data": DATA, "labels": {"padding": True, "canvas": [-4]}}}, r"`canvas` in `labels` is \[-4\]"),
        ({"options": {"data": DATA, "frame_cache": __file__}}, "`frame_cache` must be a folder .*test_prep.* is none"),
        ({"options": {"data": DATA, "processor_options": {"num_frame": 8}}}, "`num_frame` in .* mean `num_frames`"),
        ({"task": "conversation"}, "There is no task 'conversation': known are 'conversations', or 'module:Class'"),
        # settings of the evaluation
        (
            {"denoising": {"evry": 5, "block_length": 8}},
            "`evry` in `denoising` of stage .*: did you mean `every`",
        ),
        ({"denoising": {"every": 0}}, "`every` in `denoising` of stage 'answers' is 0"),
        ({"denoising": {"block_length": 48}}, r"`block_length` \(48\) does not divide `max_new_tokens` \(64\)"),
        # arguments of transformers' trainer
        ({"arguments": {"dataloader_prefetch_factor": 4}}, "`arguments` of stage 'answers' do .*dataloader_prefetch"),
        ({"arguments": {"bf16": True, "fp16": True}}, "`arguments` of stage 'answers' do not go together: .*both"),
        ({"arguments": {"report_to": ["tensorbord"]}}, "`arguments` of stage 'answers' .* tensorbord is not supported"),
        ({"arguments": {"lr_scheduler_type": "cosine_with_min_lr"}}, "`arguments` of stage 'answers' .*min_lr"),
        ({"arguments": {"train_sampling_strategy": "group_by_length"}}, "'answers' .* needs data from files"),
    ],
)
def test_mistakes_are_reported_before_anything_runs(tmp_path, stage, message):
    with pytest.raises(ValueError, match=message):
        prepare(changed(tmp_path, **stage), 1)
    assert not list(tmp_path.iterdir())


def test_questions_that_cannot_be_read_are_reported_too(tmp_path):
    with pytest.raises(OSError, match="none.jsonl"):
        prepare(changed(tmp_path, denoising={"questions": str(tmp_path / "none.jsonl")}), 1)
    (tmp_path / "open.jsonl").write_text('{"video": "open.jsonl", "question": "What happens?"}\n')
    with pytest.raises(ValueError, match="The questions of .*open.jsonl have no answers to compare with"):
        prepare(changed(tmp_path, denoising={"questions": str(tmp_path / "open.jsonl")}), 1)


def test_several_processes_are_not_started_for_a_recipe_with_a_mistake(tmp_path, capfd):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(changed(tmp_path, options={}).as_dict()))
    with pytest.raises(ValueError, match="lacks the key `data`"):
        launch(file, 2)
    assert not (tmp_path / "run").exists()


def test_a_plan_knows_the_options_too(tmp_path):
    with pytest.raises(ValueError, match="Unknown key `dat` in `options` of the task ConversationTask: did you"):
        plan(changed(tmp_path, options={"dat": DATA}))


def test_missing_data_of_a_later_stage_are_reported_before_anything_runs(tmp_path):
    def prepare_with(**options) -> None:
        prepare(changed(tmp_path, options={"data": {"source": "llava"} | options}), 1)

    with pytest.raises(FileNotFoundError, match="There is no file .*none.json"):
        prepare_with(path=str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="`data` of the source 'llava' lacks the key `path`"):
        prepare_with()
    assert not list(tmp_path.iterdir())
    cut = tmp_path / "cut.json"
    cut.write_text('[{"video": "a.mp4", "conver')
    with pytest.raises(ValueError, match="cut.json is no JSON: .* Was its download cut short"):
        prepare_with(path=str(cut))
    assert list(tmp_path.iterdir()) == [cut]


def test_data_of_a_stage_that_has_ended_are_not_asked_for(tmp_path):
    content = recipe(tmp_path).as_dict()
    content["stages"][0]["task"] = "conversations"
    content["stages"][0]["options"] = {"data": {"source": "llava", "path": str(tmp_path / "deleted.json")}}
    done = Recipe.from_dict(content)
    with pytest.raises(FileNotFoundError):
        prepare(done, 1)
    claim(done, 1)
    (tmp_path / "1-vision" / "model").mkdir()
    prepare(done, 1)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`output_dir` must be a folder, and .*file is a file"):
        prepare(recipe(tmp_path / "file"), 1)
