import pytest

from vidlada_hf.evaluation.lmms.benchmarks import BENCHMARKS, with_official
from vidlada_hf.evaluation.lmms.model_args import GENERATION, ModelArgs


def test_names_go_where_they_belong() -> None:
    args = ModelArgs.parse(
        {"pretrained": "a/b", "num_frames": 8, "think_mode": "no_think", "gen_length": 2, "cache_config": None}
    )
    assert args == ModelArgs(
        "a/b", inputs={"num_frames": 8, "think_mode": "no_think"}, generation={"max_new_tokens": 2}
    )


@pytest.mark.parametrize("name", GENERATION)
def test_each_setting_of_generate_is_taken(name: str) -> None:
    value = {"cache_strategy": "dual", "unmasking": "factor", "remasking": "random"}.get(name)
    assert ModelArgs.parse({name: value}).generation == ({} if value is None else {name: value})


def test_settings_of_a_cache_are_json() -> None:
    args = ModelArgs.parse({"cache_strategy": "mars", "cache_config": '{"anchors":8}'})
    assert args.generation["cache_config"] == {"anchors": 8}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_framse": 8}, "Unknown option `num_framse` of model_args. Did you mean `num_frames`?"),
        ({"num_frames": 8, "fps": 1}, "`num_frames=8` and `fps=1` are two ways to choose frames"),
        ({"num_frames": 0.5}, "`num_frames=0.5` is impossible"),
        ({"cache_strategy": "mrs"}, "'mrs'"),
        ({"cache_strategy": "mars", "cache_config": "anchors"}, "`cache_config=anchors` is no JSON"),
        ({"cache_strategy": "mars", "cache_config": '{"ancors": 8}'}, "ancors"),
        ({"think_mode": "maybe"}, "`think_mode` must be one of"),
        ({"workers": 0}, "`workers` must be a whole number of at least 1, got 0"),
        ({"max_new_tokens": 9, "block_length": 4, "max_denoising_steps": 2}, "`block_length` (4) does not divide"),
        ({"share_video": "yes"}, "`share_video` must be True or False, got 'yes'"),
        ({"share_video": True, "cfg_scale": 1.5}, "`cfg_scale` (1.5)"),
        ({"gen_length": 2, "max_new_tokens": 4}, "given twice"),
    ],
)
def test_what_is_impossible_is_named(given: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        ModelArgs.parse(given)
    assert message in str(error.value)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_official_settings_are_possible(task: str) -> None:
    args = ModelArgs.parse(with_official(task, {}))
    assert args.inputs["add_time_instruction"] == (task == "mvbench") and args.inputs["max_frames"] == 64
    assert [args.generation[name] for name in ("max_new_tokens", "max_denoising_steps", "temperature")] == [2, 2, 0]


def test_a_user_goes_before_the_official_settings() -> None:
    given = with_official("videomme", {"num_frames": 8, "max_new_tokens": 16, "block_length": 16})
    assert "fps" not in given and given["max_new_tokens"] == 16 and given["max_denoising_steps"] == 2
    with pytest.raises(ValueError, match="two ways to choose frames"):
        ModelArgs.parse(with_official("videomme", {"num_frames": 8, "fps": 2}))
    assert with_official("a task of one's own", {"fps": 2}) == {"fps": 2}
