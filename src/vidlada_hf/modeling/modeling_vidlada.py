"""The network: vision tower and projector, bidirectional text model, head.

Facts and figures: arXiv 2601.17868 and the official code (repository ziHoHe/VidLaDA).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple

from .arguments_vidlada import refuse_unknown
from .configuration_vidlada import VidLaDAConfig
from .generation_vidlada import VidLaDAGenerationMixin
from .masked_loss_vidlada import GivenMasks, VidLaDALossMixin, VidLaDALossOutput, check_is_masked
from .objective_vidlada import TimeSampling
from .official_checkpoint_vidlada import WEIGHT_RENAMINGS
from .scoring_vidlada import VidLaDAScoringMixin
from .text_model_vidlada import VidLaDAPreTrainedModel, VidLaDATextModel, require_one
from .video_cache_vidlada import VISUAL_INPUTS, ChatBeginning, VideoCache
from .vision_vidlada import VidLaDANewline, VidLaDAProjector, VidLaDAVisionTower, pool_patches, scatter_features


@dataclass
class VidLaDAModelOutput(ModelOutput):
    """What `VidLaDAModel` returns.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, tokens, hidden)`): after the final norm.
        hidden_states, attentions: one a layer, where asked for (`hidden_states[0]` is the embeddings).
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VidLaDAOutput(ModelOutput):
    """What `VidLaDAForConditionalGeneration` returns without `labels` (with them a `VidLaDALossOutput`).

    Args:
        logits (`torch.FloatTensor` of shape `(batch, tokens kept, vocabulary)`): at the positions of
            `logits_to_keep`. Position i predicts its own token, not the next one.
        hidden_states, attentions: one a layer, where asked for.
    """

    loss: None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VidLaDAModel(VidLaDAPreTrainedModel):
    """Tower, projector and text model, without the head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]
    _belongs_to_head = False
    _has_seen_masks = False

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__(config)
        self.vision_tower = VidLaDAVisionTower._from_config(config.vision_config)
        self.multi_modal_projector = VidLaDAProjector(config)
        self.image_newline = VidLaDANewline(config.text_config.hidden_size)
        self.language_model = VidLaDATextModel._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The text model's token embeddings."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the text model's token embeddings."""
        self.language_model.embed_tokens = value

    @property
    def tokens_per_frame(self) -> int:
        """Tokens that one frame of a video takes (210 for the 8B model)."""
        side = self.config.vision_grid / self.config.pooling_stride
        side = math.ceil(side) if self.config.pooling_mode == "bilinear" else math.floor(side)
        return side * side + {"grid": side, "frame": 1}.get(self.config.newline_position, 0)

    def _encode(self, pixels: torch.Tensor, pool: bool, vision_batch_size: int | None) -> torch.Tensor:
        """Pixels (frames, 3, side, side) -> (frames, height, width, hidden), so many frames at a time."""
        chunks = []
        for chunk in pixels.split(vision_batch_size or max(len(pixels), 1)):
            features = self.vision_tower(chunk.to(self.vision_tower.dtype)).last_hidden_state
            features = self.multi_modal_projector(features)
            stride = self.config.pooling_stride if pool else 1
            chunks.append(pool_patches(features, stride, self.config.pooling_mode))
        return torch.cat(chunks)

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        num_frames_per_video: torch.Tensor | Sequence[int] | None = None,
        vision_batch_size: int | None = 16,
    ) -> list[torch.Tensor]:
        """Encodes videos once, for any number of questions (pass the result as `video_features`).

        Args:
            pixel_values_videos: (frames of all videos, 3, side, side), or (videos, frames, 3, side, side).
            num_frames_per_video: (videos,), how many of the frames belong to each video; one video by default.
            vision_batch_size: frames encoded at a time, which bounds the tower's activations; None for all at once.

        Returns:
            A tensor (tokens, hidden) for each video, `tokens` = frames x `tokens_per_frame` (+ 1 for "one_token").

        Raises:
            ValueError: the counts do not add up to the frames given, or a video has no frames.
        """
        if pixel_values_videos.dim() == 5:
            if num_frames_per_video is None:
                num_frames_per_video = [pixel_values_videos.shape[1]] * pixel_values_videos.shape[0]
            pixel_values_videos = pixel_values_videos.flatten(0, 1)
        counts = [len(pixel_values_videos)] if num_frames_per_video is None else [int(n) for n in num_frames_per_video]
        if sum(counts) != len(pixel_values_videos) or min(counts, default=0) < 1:
            raise ValueError(
                f"`num_frames_per_video` is {counts} (sum {sum(counts)}) but `pixel_values_videos` holds "
                f"{len(pixel_values_videos)} frames; each video needs at least one, and all must add up. (The batching "
                "of transformers' own pipelines cuts frames off: use batch_size=1 there, or the pipeline "
                "'video-text-to-text'.)"
            )
        frames = self._encode(pixel_values_videos, pool=True, vision_batch_size=vision_batch_size)
        position = self.config.newline_position
        return [self.image_newline(video, position) for video in frames.split(counts)]

    def get_image_features(self, pixel_values: torch.Tensor, vision_batch_size: int | None = 16) -> list[torch.Tensor]:
        """Encodes images, one base view each: all patches without pooling, then one newline.

        Args:
            pixel_values: (images, 3, side, side).
            vision_batch_size: images encoded at a time.

        Returns:
            A tensor (patches + 1, hidden) for each image (730 tokens for the 8B model).
        """
        images = self._encode(pixel_values, pool=False, vision_batch_size=vision_batch_size)
        return [self.image_newline(image[None], "one_token") for image in images]

    def merge_features(
        self,
        input_ids: torch.LongTensor,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        num_frames_per_video: torch.Tensor | Sequence[int] | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
    ) -> torch.Tensor:
        """Token embeddings (batch, tokens, hidden) with the visual features at their placeholders.

        Raises:
            ValueError: placeholders without features, features without placeholders, or their numbers differ.
        """
        if pixel_values_videos is not None and video_features is not None:
            raise ValueError("Give `pixel_values_videos` or `video_features`, not both: they say the same twice.")
        if pixel_values_videos is not None:
            video_features = self.get_video_features(pixel_values_videos, num_frames_per_video, vision_batch_size)
        image_features = None if pixel_values is None else self.get_image_features(pixel_values, vision_batch_size)

        is_video, is_image = input_ids == self.config.video_token_id, input_ids == self.config.image_token_id
        # The placeholders' own embeddings are never used, and their ids may lie outside the vocabulary.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_video | is_image, 0))
        for what, marked, features in (("video", is_video, video_features), ("image", is_image, image_features)):
            embeddings = scatter_features(embeddings, marked, features, what)
        return embeddings

    def frame_index(
        self, input_ids: torch.LongTensor, num_frames_per_video: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """The frame that each token shows, (batch, tokens), int64: 0, 1, ... within an example, -1 for text and images.

        Args:
            num_frames_per_video: (videos,); needed only for "one_token" with several videos in an example.
        """
        is_video = input_ids == self.config.video_token_id
        count = is_video.long().cumsum(-1) - 1  # visual tokens before, in the example
        if self.config.newline_position == "one_token":
            newline = is_video & (count == count[:, -1:])
            if num_frames_per_video is not None:
                lengths = torch.as_tensor(num_frames_per_video, device=input_ids.device) * self.tokens_per_frame + 1
                newline[is_video] = torch.isin(
                    torch.arange(int(is_video.sum()), device=input_ids.device), lengths.cumsum(0) - 1
                )
            count = count - newline.long().cumsum(-1)
        return torch.where(is_video, count // self.tokens_per_frame, -1)

    def check_training_ids(self, input_ids: torch.Tensor | None, output_hidden_states: bool | None = None) -> None:
        """Whether the head's logits of these ids can be trained on, where the model is in training.

        Args:
            output_hidden_states: asked for by who trains a head of his own. These ids need no masks.

        Raises:
            ValueError: none is masked (see `check_is_masked`).
        """
        config = self.config
        own_head = output_hidden_states or config.output_hidden_states or config.text_config.output_hidden_states
        # Who masks by himself may draw no mask for a batch.
        if self._has_seen_masks or own_head or input_ids is None or not (self.training and torch.is_grad_enabled()):
            return
        check_is_masked(input_ids, config.mask_token_id)
        self._has_seen_masks = True

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        num_frames_per_video: torch.Tensor | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
        **kwargs: Any,
    ) -> VidLaDAModelOutput:
        """Hidden states of every token. See `VidLaDAForConditionalGeneration.forward` for the arguments."""
        require_one(input_ids, inputs_embeds)
        # TRL's trainers pass the head's forward by and apply the head themselves. An argument that belongs to causal
        # models gives them away.
        if self._belongs_to_head and "use_cache" in kwargs:
            self.check_training_ids(input_ids, kwargs.get("output_hidden_states"))
        if input_ids is not None:
            inputs_embeds = self.merge_features(
                input_ids, pixel_values, pixel_values_videos, num_frames_per_video, video_features, vision_batch_size
            )
        elif any(given is not None for given in (pixel_values, pixel_values_videos, video_features)):
            raise ValueError(
                "Visual inputs need `input_ids`, whose placeholders say where they go. Pass `input_ids`, or merge them "
                "yourself with `merge_features` and pass the result as `inputs_embeds`."
            )
        outputs = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        )
        return VidLaDAModelOutput(outputs.last_hidden_state, outputs.hidden_states, outputs.attentions)


class VidLaDAForConditionalGeneration(
    VidLaDALossMixin, VidLaDAGenerationMixin, VidLaDAScoringMixin, VidLaDAPreTrainedModel
):
    """VidLaDA with its head: `forward` for logits, `generate` for answers."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__(config)
        self.model = VidLaDAModel(config)
        self.model._belongs_to_head = type(self).forward is VidLaDAForConditionalGeneration.forward
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The text model's token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the text model's token embeddings."""
        self.model.set_input_embeddings(value)

    def get_video_features(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        return self.model.get_video_features(*args, **kwargs)

    def get_image_features(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        return self.model.get_image_features(*args, **kwargs)

    @torch.no_grad()
    def encode_video(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        *,
        vision_batch_size: int | None = 16,
        **visual: Any,
    ) -> VideoCache:
        """Computes what stands before any question once: keys and values of all layers, up to the last visual token.

        Args:
            input_ids, attention_mask: (1, tokens), a chat as the processor renders it; what stands behind its last
                video or image is not looked at.
            visual: `pixel_values`, `pixel_values_videos`, `num_frames_per_video`, `video_features`, as in `forward`.

        Returns:
            For `generate(..., video_cache=...)`, with any chats that begin in the same way.

        Raises:
            ValueError: not one chat, or one without a video or an image; placeholders and features that do not match.
        """
        refuse_unknown(visual, VISUAL_INPUTS, "argument of `encode_video`:")
        if len(input_ids) != 1:
            raise ValueError(f"`encode_video` takes one chat, got a batch of {len(input_ids)}: call it for each video.")
        beginning = ChatBeginning.of(self.config, input_ids, attention_mask)
        return beginning.ready(self.model, visual, 1, vision_batch_size)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        num_frames_per_video: torch.Tensor | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
        logits_to_keep: int | torch.Tensor = 0,
        labels: torch.LongTensor | None = None,
        masked: torch.Tensor | None = None,
        mask_probabilities: torch.Tensor | None = None,
        example_weights: torch.Tensor | None = None,
        time_sampling: TimeSampling = "independent",
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        **kwargs: Any,
    ) -> VidLaDAOutput | VidLaDALossOutput:
        """Logits of every position, each for its own token; or with `labels` the training loss.

        Args:
            input_ids: (batch, tokens), with `tokens_per_frame` placeholders a frame; or
            inputs_embeds: (batch, tokens, hidden), visual features merged already.
            attention_mask: (batch, tokens), 0 where padded. Leave it out when nothing is: no mask is built then.
            position_ids: (batch, tokens); by default counted over the tokens that are not padded.
            pixel_values: (images, 3, side, side), in the order of the image placeholders over the batch.
            pixel_values_videos: (frames of all videos, 3, side, side), videos in the order of their placeholders.
            num_frames_per_video: (videos,), frames of each video.
            video_features: instead of pixels, what `get_video_features` returned.
            vision_batch_size: frames that the tower encodes at a time; None for all at once.
            logits_to_keep: compute the head only at the last so many positions (0 for all), or at these (1-d tensor).
            labels: (batch, tokens), the tokens to learn, -100 elsewhere. Some of them are masked in the input, and the
                loss is that of predicting these (see `objective_vidlada`). The input holds the answer unmasked.
            masked, mask_probabilities: (batch, tokens) bool and (batch,), the masks and the probabilities with which
                they were drawn. Drawn here if not given; with `masked` the probabilities must be given too.
            example_weights: (batch,), what each example's part of the loss is multiplied by.
            time_sampling: how the probabilities are drawn, see `draw_mask_probabilities`.
            generator: from what they and the masks are drawn, or one for each example. Without one, from torch's own;
                in eval mode without gradients from what each example holds, so that a loss repeats.

        Raises:
            ValueError: ids and embeddings both or neither given; placeholders and features that do not match; an
                example without labels; labels, masks or probabilities of another shape, or with impossible values; in
                training mode with gradients, ids without labels of which none is masked (see `check_is_masked`).
        """
        visual = {
            "pixel_values": pixel_values,
            "pixel_values_videos": pixel_values_videos,
            "num_frames_per_video": num_frames_per_video,
            "video_features": video_features,
            "vision_batch_size": vision_batch_size,
        }
        kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids}
        if labels is not None:
            inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, **visual}
            masks = GivenMasks(masked, mask_probabilities, example_weights, time_sampling, generator)
            return self._masked_loss(labels, inputs, masks, **kwargs)
        if any(given is not None for given in (masked, mask_probabilities, example_weights)):
            raise ValueError(
                "`masked`, `mask_probabilities` and `example_weights` belong to training: give `labels` too."
            )
        self.model.check_training_ids(input_ids, kwargs.get("output_hidden_states"))
        outputs = self.model(input_ids=input_ids, inputs_embeds=inputs_embeds, **visual, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        return VidLaDAOutput(None, logits, outputs.hidden_states, outputs.attentions)


register_checkpoint_conversion_mapping(
    VidLaDAConfig.model_type,
    [WeightRenaming(official, ours) for official, ours in WEIGHT_RENAMINGS],
    overwrite=True,
)

__all__ = [
    "VidLaDAForConditionalGeneration",
    "VidLaDALossOutput",
    "VidLaDAModel",
    "VidLaDAModelOutput",
    "VidLaDAOutput",
]
