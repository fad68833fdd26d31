"""transformers' common tests of processors and video processors, run on tiny ones."""

import unittest
from typing import Any

from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from tests.tiny_models import byte_tokenizer
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

from .package import exclude, upstream

processing = upstream("test_processing_common")
videos = upstream("test_video_processing_common")

EXCLUDED = {
    "test_apply_chat_template_video_frame_sampling": "frames are sampled from a list of them too, and `fps` without "
    "sampling is refused",
    "test_chat_template_message_objects": "the template sees a part's source under one name, not as it was given",
    "test_if_input_has_mismatching_tokens_and_mm_data": "the error says the same in other words",
    "test_init_arguments_not_in_processor_kwargs": "options of a call have their defaults in the processor's file",
}
EXCLUDED_OF_VIDEOS = {
    "test_call_sample_frames": "a video with fewer frames than asked for is taken whole, as by the official code",
    "test_video_processor_from_dict_with_kwargs": "one number as `size` means a square, as the tower takes frames",
}


class StackedVideos(VidLaDAVideoProcessor):
    """Videos of equally many frames in the layout that the tests of calls expect: (videos, frames, ...), not flat."""

    def preprocess(self, videos: Any, **options: Any) -> Any:
        batch = super().preprocess(videos, **options)
        frames = int(batch["num_frames_per_video"][0])
        batch["pixel_values_videos"] = batch["pixel_values_videos"].unflatten(0, (-1, frames))
        return batch


@exclude(EXCLUDED)
class ProcessorTest(processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = VidLaDAProcessor

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return byte_tokenizer()

    @classmethod
    def _setup_image_processor(cls) -> Any:
        return SiglipImageProcessor(size={"height": 28, "width": 28})

    @classmethod
    def _setup_video_processor(cls) -> Any:
        return VidLaDAVideoProcessor(size={"height": 28, "width": 28}, max_frames=8)

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"patch_size": 14}


class Tester:
    """What the common tests ask about the video processor."""

    batch_size, num_frames, num_channels = 5, 8, 3
    min_resolution, max_resolution = 30, 80

    def prepare_video_processor_dict(self) -> dict[str, Any]:
        crop = {"do_center_crop": True, "crop_size": {"height": 18, "width": 18}}
        return {"size": {"shortest_edge": 20}, "do_sample_frames": False, **crop}

    def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> Any:
        return videos.prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=self.min_resolution,
            max_resolution=self.max_resolution,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )

    def expected_output_video_shape(self, given: Any) -> list[int]:
        return [self.num_frames, self.num_channels, 18, 18]


@exclude(EXCLUDED_OF_VIDEOS)
class VideoProcessorTest(videos.VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = VidLaDAVideoProcessor

    def setUp(self) -> None:
        super().setUp()
        self.video_processor_tester = Tester()
        if self._testMethodName.startswith(("test_call", "test_nested")):
            self.video_processor_list = [StackedVideos]

    @property
    def video_processor_dict(self) -> dict[str, Any]:
        return self.video_processor_tester.prepare_video_processor_dict()
