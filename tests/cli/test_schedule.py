from pathlib import Path


def test_schedule_is_printed_and_drawn(vidlada, tmp_path: Path) -> None:
    strategy = 'mars:{"visual_intervals": [8, 4], "text_intervals": [4, 2]}'
    options = ("--max-new-tokens", 8, "--block-length", 4, "--plot", tmp_path / "plan.png")
    code, out, _ = vidlada("schedule", "--cache-strategy", strategy, *options)
    assert code == 0 and "visual group 1 #...#..." in out and "text group 1   #.#.#.#." in out
    assert "times fewer operations than exact decoding (8B, 32 x 210 visual tokens)" in out
    assert (tmp_path / "plan.png").stat().st_size > 3000
    code, out, _ = vidlada("schedule", *options[:-1], tmp_path / "bare")
    assert code == 0 and f"Drawn in {tmp_path / 'bare.png'}." in out and (tmp_path / "bare.png").exists()
    code, out, message = vidlada("schedule", "--cache-strategy", "nars")
    assert (code, out) == (1, "") and "Unknown `cache_strategy` 'nars'" in message
