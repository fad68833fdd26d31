"""The ways of docs/quantization.md to load with fewer bits: answers, bytes, and what is not captured.

torchao and bitsandbytes are installed beside the packages that run the tests, in an environment of its own, unless
they are here already.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
PACKAGES = ["torchao==0.18.0", "bitsandbytes==0.50.2"]
BLOCKS = (ROOT / "docs" / "quantization.md").read_text().split("```python\n")[1:]

# After a block, which defines `ways` and loads one of them.
CHECKS = """
import sys
import tempfile
from vidlada_hf.cli import app
from vidlada_hf import VidLaDAProcessor
from vidlada_hf.evaluation.decoding import answer_questions
from vidlada_hf.evaluation.memory_plan import PRECISIONS, count_weights
from vidlada_hf.evaluation.questions import is_right, load_questions
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES, resolve_cache_strategy
from vidlada_hf.modeling.cuda_graphs_vidlada import why_not_captured

way = sys.argv[1]
dtype = torch.float16 if way == "bnb-int8" else torch.bfloat16
load = lambda config: VidLaDAForConditionalGeneration.from_pretrained(
    EMBEDDED_CHECKPOINT, dtype=dtype, quantization_config=config, device_map="cpu"
).eval()
model = load(ways[way])


def size(tensor):
    inner = getattr(tensor, "__tensor_flatten__", None)
    parts = [getattr(tensor, name) for name in inner()[0]] if inner else []
    state = getattr(tensor, "quant_state", None)
    others = [getattr(tensor, "SCB", None)] if state is None else [state.absmax]
    own = 0 if parts else tensor.untyped_storage().nbytes()
    return own + sum(size(part) for part in [*parts, *others] if part is not None)


kinds = {
    name: type(module).__name__ + type(module.weight).__name__
    for name, module in model.named_modules() if hasattr(module, "in_features")
}
whole = [name for name in kinds if name.startswith(tuple(WHOLE))]
assert whole and {kinds[name] for name in whole} == {"LinearParameter"}
left_out = ["down_proj"] if way == "bnb-nf4" else []
quantized = [name for name in kinds if ".layers." in name and "language_model" in name]
assert all(kinds[name] != "LinearParameter" for name in quantized if not name.endswith(tuple(left_out)))

counted = sum(size(parameter) for parameter in model.parameters())
planned = count_weights(model.config, PRECISIONS[way])
for name, module in model.named_modules() if left_out else []:
    if name.endswith("down_proj"):
        planned += module.weight.nbytes - PRECISIONS[way].matrix_bytes(*module.weight.shape)
assert abs(counted - planned) < 0.01 * counted, (counted, planned)

for name in CACHE_STRATEGIES:
    why = why_not_captured(model, resolve_cache_strategy(name), torch.device("cpu"))
    assert "quantized" in why or "Linear8bitLt" in why or "Linear4bit" in why, why

processor, questions = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT), load_questions()
with tempfile.TemporaryDirectory() as folder:
    for part in (model, processor):
        part.save_pretrained(folder)
    app(["ask", str(EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"), "What color is the bar?", "--model", folder],
        standalone_mode=False)
    again = VidLaDAForConditionalGeneration.from_pretrained(folder, device_map="cpu").eval()
first, second = (
    next(answer_questions(each, processor, questions, 8, 10, max_new_tokens=32)) for each in (model, again)
)
assert first == second
shared = next(answer_questions(model, processor, questions, 8, 10, share_video=True, max_new_tokens=32))
assert sum(map(is_right, questions, shared)) >= 8, shared
for name in CACHE_STRATEGIES:
    answers = [
        text
        for batch in answer_questions(model, processor, questions, 8, 10, max_new_tokens=32, cache_strategy=name)
        for text in batch
    ]
    right = sum(map(is_right, questions, answers))
    print(way, name, right, "of", len(questions))
    assert right >= 8, answers
"""

# A module that is named without its beginning is quantized in spite of that.
WITHOUT_PREFIX = """
from torchao.quantization import Int8WeightOnlyConfig
from transformers import TorchAoConfig
from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration
config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["vision_tower"])
model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT, quantization_config=config)
layer = model.model.vision_tower.encoder.layers[0].self_attn.q_proj
assert type(layer.weight).__name__ == type(model.lm_head.weight).__name__ == "Int8Tensor"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds both, and sees the packages of this one."""
    if all(importlib.util.find_spec(name) for name in ("torchao", "bitsandbytes")):
        return Path(sys.executable)
    folder = tmp_path_factory.mktemp("quant")
    processes.run([sys.executable, "-m", "venv", folder], timeout=600)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "seen.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    done = processes.run([folder / "bin" / "python", "-m", "pip", "install", "--no-deps", *PACKAGES], timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin" / "python"


def run(python: Path, script: str, *arguments: str) -> None:
    command = [python, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{script}", *arguments]
    done = processes.run(command, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("block", "way"), [(0, "int8"), (0, "float8"), (1, "bnb-int8"), (1, "bnb-nf4")])
def test_it_answers_and_takes_the_bytes_of_the_plan(python: Path, block: int, way: str) -> None:
    run(python, BLOCKS[block].partition("```")[0] + CHECKS, way)


def test_a_name_without_its_beginning_leaves_nothing_out(python: Path) -> None:
    run(python, WITHOUT_PREFIX)
