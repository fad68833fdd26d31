import pytest

from tests.training.helpers import DATA, BrightnessQuestions
from vidlada_hf.training.data.sources import build_dataset


def test_a_source_may_be_any_class():
    dataset = build_dataset(seed=7, **DATA)
    assert isinstance(dataset, BrightnessQuestions) and dataset.seed == 7 and len(dataset) == DATA["length"]


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(ValueError, match="There is no source 'lava': known are 'llava', 'messages', or 'module:Class'"):
        build_dataset("lava", seed=0)
    with pytest.raises(ValueError, match="Unknown key `pth` in `data` of the source 'llava': did you mean `path`"):
        build_dataset("llava", seed=0, pth="a.json")
