import json
import subprocess
import sys
from pathlib import Path

import pytest

from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.hub import locate

from .conftest import QUESTION


def expected_answer(checkpoint: Path, clip: Path, sampling: dict, **settings: object) -> str:
    """What the model says by hand."""
    processor = VidLaDAProcessor.from_pretrained(checkpoint)
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=sampling,
    )
    sequences = VidLaDAForConditionalGeneration.from_pretrained(checkpoint).generate(**inputs, **settings)
    return processor.decode(sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_ask_prints_the_answer(vidlada, checkpoint: Path, clip: Path) -> None:
    code, out, _ = vidlada(
        "ask", clip, QUESTION, "--model", checkpoint, "--frames", 3, "--max-new-tokens", 16, "--max-denoising-steps", 8
    )
    assert (code, out.strip()) == (
        0,
        expected_answer(checkpoint, clip, {"num_frames": 3}, max_new_tokens=16, max_denoising_steps=8),
    )


def test_ask_as_json(vidlada, checkpoint: Path, clip: Path) -> None:
    code, out, _ = vidlada(
        "ask",
        clip,
        QUESTION,
        "--model",
        checkpoint,
        "--fps",
        2,
        "--max-new-tokens",
        16,
        "--max-denoising-steps",
        8,
        "--json",
    )
    (line,) = out.splitlines()
    answer = json.loads(line)
    assert code == 0
    assert answer["frames"] == 6  # two a second of three seconds
    assert answer["answer"] == expected_answer(checkpoint, clip, {"fps": 2}, max_new_tokens=16, max_denoising_steps=8)
    assert (answer["question"], answer["video"], answer["model"]) == (QUESTION, str(clip), str(checkpoint))
    assert answer["tokens_per_forward"] == 2 and answer["seconds"] > 0
    assert (answer["settings"]["max_new_tokens"], answer["settings"]["max_denoising_steps"]) == (16, 8)


def test_stream_without_a_terminal_is_plain_text(vidlada, checkpoint: Path, clip: Path) -> None:
    arguments = (
        "ask",
        clip,
        QUESTION,
        "--model",
        checkpoint,
        "--frames",
        2,
        "--max-new-tokens",
        64,
        "--max-denoising-steps",
        8,
    )
    _, plain, _ = vidlada(*arguments)
    code, streamed, _ = vidlada(*arguments, "--stream")
    assert (code, streamed.strip()) == (0, plain.strip())
    assert "\033" not in streamed and "░" not in streamed


def test_several_questions(vidlada, checkpoint: Path, clip: Path) -> None:
    other = "What color is it?"
    base = ("--model", checkpoint, "--frames", 3, "--max-new-tokens", 16)
    alone = [vidlada("ask", clip, question, *base)[1].strip() for question in (QUESTION, other)]
    code, out, _ = vidlada("ask", clip, QUESTION, other, *base)
    assert (code, out) == (0, f"{QUESTION}\n{alone[0]}\n{other}\n{alone[1]}\n")
    _, streamed, _ = vidlada("ask", clip, QUESTION, other, *base, "--stream")
    assert [line.strip() for line in streamed.splitlines() if line.strip()] == [
        line.strip() for line in out.splitlines() if line.strip()
    ]
    _, out, _ = vidlada("ask", clip, QUESTION, other, *base, "--share-video", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["question"] for answer in answers] == [QUESTION, other]
    assert all(answer["share_video"] for answer in answers)


def test_choices_are_printed_best_first(vidlada, checkpoint: Path, clip: Path) -> None:
    base = ("ask", clip, QUESTION, "--model", checkpoint, "--frames", 3)
    code, out, _ = vidlada(*base, "--choice", "a", "--choice", "two words")
    lines = [line.split("  ", 1) for line in out.splitlines()]
    assert code == 0 and {text for _, text in lines} == {"a", "two words"}
    assert float(lines[0][0]) >= float(lines[1][0])
    _, out, _ = vidlada(*base, "--choice", "a", "--choice", "two words", "--json")
    assert json.loads(out)["answer"] == lines[0][1] == json.loads(out)["choices"][0][0]
    code, _, message = vidlada(*base, "--choice", "a")
    assert code == 1 and "At least two choices" in message
    for option in (("--stream",), ("--temperature", 0.5), ("--max-new-tokens", 4)):
        code, _, message = vidlada(*base, "--choice", "a", "--choice", "b", *option)
        assert code == 2 and f"leave out {option[0]}" in message


def test_contradicting_options(vidlada, checkpoint: Path, clip: Path) -> None:
    ask = ("ask", clip, QUESTION, "--model", checkpoint)
    code, out, message = vidlada(*ask, "--frames", 3, "--fps", 1)
    assert (code, out) == (2, "") and "--frames" in message and "--fps" in message
    code, out, message = vidlada(*ask, "--stream", "--json")
    assert (code, out) == (2, "") and "--stream" in message and "--json" in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--max-new-tokens", 33, "--max-denoising-steps", 3), "`max_denoising_steps` (3) is not a multiple"),
        (("--max-new-tokens", 32, "--block-length", 5), "`block_length` (5)"),
        (("--temperature", -1), "`temperature`"),
        (("--cache-strategy", "nars"), "Unknown `cache_strategy` 'nars'"),
        (("--cache-strategy", "mars:8"), "must be a JSON object"),
        (("--unmasking", "thresh"), "Unknown `unmasking` 'thresh'"),
        (("--unmasking", "threshold:two"), "'two' in 'threshold:two' is no number"),
        (("--unmasking", "quota:1"), "'quota' takes no number"),
        (("--device", "cuda:99"), "no device 'cuda:99'"),
        (("--dtype", "int3"), "`dtype` must be one of 'auto', 'float32'"),
        (("--frames", 0), "num_frames=0"),
        (("--fps", -1), "fps=-1"),
        (("--seed", 2**70), "`seed` must be a whole number"),
        (("--choice", "a", "--choice", "b", "--seed", 2**70), "`seed` must be a whole number"),
    ],
)
def test_impossible_settings_are_one_line_each(vidlada, checkpoint: Path, clip: Path, options, reason: str) -> None:
    code, out, message = vidlada("ask", clip, QUESTION, "--model", checkpoint, *options)
    assert (code, out, message.count("\n")) == (1, "", 0) and reason in message


def test_what_cannot_be_read_is_named(vidlada, checkpoint: Path, clip: Path, golden: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage.mp4").write_bytes(b"no video" * 100)
    for name in ("missing.mp4", "garbage.mp4"):
        code, out, message = vidlada("ask", tmp_path / name, QUESTION, "--model", checkpoint)
        assert (code, out, message.count("\n")) == (1, "", 0) and name in message
    for folder, reason in (
        (tmp_path / "no" / "such", "is no folder"),
        (tmp_path, "config.json"),
        (golden / "checkpoint", "vidlada convert"),
    ):
        code, out, message = vidlada("ask", clip, QUESTION, "--model", folder)
        assert (code, out) == (1, "") and str(folder) in message and reason in message


def test_an_address_needs_a_word(vidlada, checkpoint: Path) -> None:
    code, out, message = vidlada("ask", "http://127.0.0.1:1/a.mp4", QUESTION, "--model", checkpoint)
    assert (code, out, message.count("\n")) == (1, "", 0) and "`--allow-urls`" in message
    code, out, message = vidlada("ask", "http://127.0.0.1:1/a.mp4", QUESTION, "--model", checkpoint, "--allow-urls")
    assert (code, out) == (1, "") and "`allow_private_urls=True`" in message


def test_without_a_model(vidlada, clip: Path, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(locate, "EMBEDDED_CHECKPOINT", tmp_path)
    code, _, message = vidlada("ask", clip, QUESTION)
    assert code == 1 and "--model" in message
    monkeypatch.setattr(locate, "EMBEDDED_CHECKPOINT", checkpoint)
    code, out, message = vidlada("ask", clip, QUESTION, "--max-new-tokens", 8, "--json")
    assert code == 0 and json.loads(out)["model"] == str(checkpoint)
    assert "the embedded checkpoint answers" in message and "--model" in message


def test_how_it_is_decoded_and_where(vidlada, checkpoint: Path, clip: Path) -> None:
    base = ("ask", clip, QUESTION, "--model", checkpoint, "--frames", 2, "--max-new-tokens", 8, "--json")
    cache, rule = 'interval:{"prompt_interval": 4}', "local:0.6"
    code, out, message = vidlada(*base, "--cache-strategy", cache, "--unmasking", rule, "--device", "cpu")
    settings = json.loads(out)["settings"]
    assert (code, message) == (0, "") and (settings["unmasking"], settings["unmask_relaxed_threshold"]) == (
        "local",
        0.6,
    )
    assert (settings["cache_strategy"], settings["cache_config"]) == ("interval", {"prompt_interval": 4})
    _, out, _ = vidlada(*base, "--unmasking", "threshold:0.01")
    assert json.loads(out)["tokens_per_forward"] > json.loads(vidlada(*base)[1])["tokens_per_forward"]
    assert vidlada(*base, "--dtype", "bfloat16")[0] == 0
    choices = ("--choice", "a", "--choice", "two words")
    code, out, _ = vidlada(*base[:-3], "--json", *choices, "--cache-strategy", "dual")
    assert code == 0 and json.loads(out)["settings"]["cache_strategy"] == "dual"


def test_no_bars_and_no_warnings(checkpoint: Path, clip: Path) -> None:
    command = [Path(sys.executable).with_name("vidlada"), "ask", clip, QUESTION, "--model", checkpoint]
    done = subprocess.run([*map(str, command), "--frames", "2"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() and done.stderr == ""
