import pytest
import torch

from tests.tiny_models import build_tiny
from tests.training.helpers import HEADS_TASK, BrightnessTask
from vidlada_hf.training.task import accuracy, find_task


def test_tasks_are_named_or_given_by_module_and_class():
    assert find_task("conversations") is find_task("vidlada_hf.training.conversation_task:ConversationTask")
    assert find_task(HEADS_TASK) is BrightnessTask


def test_options_are_the_keyword_arguments_of_a_task():
    BrightnessTask.check({"frames": 4})
    with pytest.raises(ValueError, match="Unknown key `frame` in `options` of the task BrightnessTask: did you mean"):
        BrightnessTask.check({"frame": 4})
    with pytest.raises(ValueError, match="`frames` in .* is 0: .* greater than or equal to 1"):
        BrightnessTask.check({"frames": 0})


def test_heads_of_the_same_name_and_shape_are_restored():
    task = BrightnessTask(*build_tiny())
    own = {name: tensor.clone() for name, tensor in task.heads.state_dict().items()}
    trained = {"light.weight": torch.ones(2, 32), "light.bias": torch.ones(3), "other.bias": torch.ones(2)}
    task.restore_heads(trained)
    assert torch.equal(task.heads["light"].weight, trained["light.weight"])
    assert torch.equal(task.heads["light"].bias, own["light.bias"])


def test_accuracy_leaves_out_what_has_no_label():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert accuracy(logits, torch.tensor([1, 1, -1])) == 0.5
