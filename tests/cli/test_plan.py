def test_a_plan_names_what_fits(vidlada, checkpoint) -> None:
    options = ("--frames", 2, "--model", checkpoint, "--cache-strategy", "mars", "--precision", "bfloat16")
    code, out, _ = vidlada("plan", *options, "--device-memory", "2GB")
    assert code == 0 and f"{checkpoint}: 1 x 2 frames, 128 new tokens" in out
    assert out.splitlines()[2].split()[:2] == ["bfloat16", "mars"] and "1 GB of 2.0 GB is left free" in out
    code, out, _ = vidlada("plan", *options)
    assert code == 0 and "fits" not in out


def test_what_cannot_be_planned_is_refused_in_a_line(vidlada, checkpoint) -> None:
    options = ("plan", "--model", checkpoint, "--cache-strategy", "dual")
    for wrong, says in {
        ("--device-memory", "24XB"): "'24XB' is no amount of memory",
        ("--precision", "int3"): "`precision` must be one of",
        ("--block-length", "7"): "block",
    }.items():
        code, out, message = vidlada(*options, *wrong)
        assert (code, out) == (1, "") and says in message and "\n" not in message
