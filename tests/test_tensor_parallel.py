"""One model over two processes by transformers' `tp_plan="auto"`, on gloo: the tokens of one process."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from tests import processes
from tests.tiny_models import example, tiny_model

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys
import torch
from safetensors.torch import load_file
from vidlada_hf import VidLaDAForConditionalGeneration

torch.set_num_threads(1)
folder, inputs = sys.argv[1:]
model = VidLaDAForConditionalGeneration.from_pretrained(folder, tp_plan="auto")
heads = model.model.language_model.layers[0].self_attn.q_proj.weight
local = heads.to_local() if hasattr(heads, "to_local") else heads
tokens = model.generate(**load_file(inputs), max_new_tokens=16, block_length=8, max_denoising_steps=16)
if os.environ["RANK"] == "0":
    print(json.dumps({"rows": local.shape[0], "tokens": tokens.tolist()}))
torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_tokens_of_one(tmp_path):
    from safetensors.torch import save_file

    model = tiny_model()
    inputs = example(model, 2)
    model.save_pretrained(tmp_path / "model")
    save_file(inputs, tmp_path / "inputs.safetensors")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [tmp_path / "script.py", tmp_path / "model", tmp_path / "inputs.safetensors"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = processes.run(command, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["rows"] == model.model.language_model.layers[0].self_attn.q_proj.weight.shape[0] // 2
    with torch.no_grad():
        expected = model.generate(**inputs, max_new_tokens=16, block_length=8, max_denoising_steps=16)
    assert found["tokens"] == expected.tolist()
