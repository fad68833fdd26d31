"""The network: vision tower and projector, bidirectional text model, head.

Facts and figures: arXiv 2601.17868 and the official code (repository ziHoHe/VidLaDA).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple
from transformers.utils.import_utils import is_tracing

from .arguments_vidlada import refuse_unknown
from .configuration_vidlada import VidLaDAConfig
from .devices_vidlada import execution_device, move_to
from .generation_vidlada import VidLaDAGenerationMixin
from .masked_loss_vidlada import GivenMasks, VidLaDALossMixin, VidLaDALossOutput, check_is_masked
from .objective_vidlada import TimeSampling
from .official_checkpoint_vidlada import WEIGHT_RENAMINGS
from .outputs_vidlada import VidLaDAModelOutput, VidLaDAOutput, join_outputs, pooled_features
from .padded_visual_vidlada import flatten_frames, flatten_visual
from .scoring_vidlada import VidLaDAScoringMixin
from .text_model_vidlada import VidLaDAPreTrainedModel, VidLaDATextModel, require_one
from .video_cache_vidlada import VISUAL_INPUTS, ChatBeginning, VideoCache
from .vision_vidlada import (
    VidLaDANewline,
    VidLaDAProjector,
    VidLaDAVisionTower,
    frame_counts,
    pool_patches,
    scatter_features,
)

LONGEST_UNMASKED = 32  # batches in training without a mask, whatever came before


class VidLaDAModel(VidLaDAPreTrainedModel):
    """Tower, projector and text model, without the head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]
    _belongs_to_head = False
    _masked_ahead = 0  # batches in training that held masks of the caller's, less those that held none

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

    def _encode(
        self, pixels: torch.Tensor, pool: bool, vision_batch_size: int | None, **asked: bool | None
    ) -> BaseModelOutputWithPooling:
        """Runs tower, projector and pooling over so many frames at a time.

        Args:
            pixels: (frames, 3, side, side).
            asked: `output_hidden_states` and `output_attentions`; None: as the config says.

        Returns:
            The tower's output, with `pooler_output` (frames, height, width, hidden).
        """
        at_once = vision_batch_size is None or is_tracing(pixels)  # a graph would hold the tower once a part
        parts, asked = [], {name: value for name, value in asked.items() if value is not None}
        device = execution_device(self.vision_tower, pixels)
        for chunk in [pixels] if at_once else pixels.split(vision_batch_size):
            part = self.vision_tower(chunk.to(device, self.vision_tower.dtype), return_dict=True, **asked)
            features = self.multi_modal_projector(part.last_hidden_state)
            stride = self.config.pooling_stride if pool else 1
            pooled = pool_patches(features, stride, self.config.pooling_mode)
            parts.append(BaseModelOutputWithPooling(**part, pooler_output=pooled))
        return join_outputs(parts)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        num_frames_per_video: torch.Tensor | Sequence[int] | None = None,
        vision_batch_size: int | None = 16,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encodes videos once, for any number of questions (pass the result as `video_features`).

        Args:
            pixel_values_videos, num_frames_per_video: as of `VidLaDAForConditionalGeneration.forward`; one video by
                default, or one a row.
            vision_batch_size: frames encoded at a time, which bounds the tower's activations; None for all at once, as
                when the model is compiled or exported.
            output_hidden_states, output_attentions: return those of the tower's layers too.
            return_dict: False for a tuple.

        Returns:
            `pooler_output`: a list with a tensor (tokens, hidden) for each video, `tokens` = frames x
            `tokens_per_frame` (+ 1 for "one_token"); `last_hidden_state`: of the tower, (frames, patches, tower width).

        Raises:
            ValueError: the counts do not add up to the frames given, or a video has no frames.
        """
        pixel_values_videos, num_frames_per_video = flatten_frames(pixel_values_videos, num_frames_per_video)
        counts = frame_counts(num_frames_per_video, len(pixel_values_videos), getattr(self, "_is_replica", False))
        outputs = self._encode(
            pixel_values_videos,
            True,
            vision_batch_size,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        position, videos = self.config.newline_position, outputs.pooler_output.split(counts)
        outputs.pooler_output = [self.image_newline(video, position) for video in videos]
        return outputs

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        vision_batch_size: int | None = 16,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encodes images, one base view each: all patches without pooling, then one newline.

        Args:
            pixel_values: (images, 3, side, side).
            vision_batch_size, output_hidden_states, output_attentions, return_dict: as of `get_video_features`.

        Returns:
            `pooler_output`: a list with a tensor (patches + 1, hidden) for each image (730 tokens for the 8B model);
            `last_hidden_state`: of the tower, (images, patches, tower width).
        """
        outputs = self._encode(
            pixel_values,
            False,
            vision_batch_size,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        outputs.pooler_output = [self.image_newline(image[None], "one_token") for image in outputs.pooler_output]
        return outputs

    def encode_visual(
        self,
        input_ids: torch.LongTensor,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        num_frames_per_video: torch.Tensor | Sequence[int] | None = None,
        video_features: BaseModelOutputWithPooling | Sequence[torch.Tensor] | torch.Tensor | None = None,
        vision_batch_size: int | None = 16,
    ) -> tuple[BaseModelOutputWithPooling | None, BaseModelOutputWithPooling | None]:
        """What the tower makes of images and of videos, each as its `get_..._features` returns it; None without any.

        Args: as of `VidLaDAForConditionalGeneration.forward`.

        Raises:
            ValueError: pixels and features of videos.
        """
        given = {"pixel_values": pixel_values, "pixel_values_videos": pixel_values_videos}
        flat = flatten_visual(given | {"num_frames_per_video": num_frames_per_video}, input_ids, self.config)
        pixel_values, pixel_values_videos, num_frames_per_video = flat.values()
        if pixel_values_videos is not None and video_features is not None:
            raise ValueError("Give `pixel_values_videos` or `video_features`, not both: they say the same twice.")
        images = videos = None
        if pixel_values is not None:
            images = self.get_image_features(pixel_values, vision_batch_size, return_dict=True)
        if pixel_values_videos is not None:
            videos = self.get_video_features(
                pixel_values_videos, num_frames_per_video, vision_batch_size, return_dict=True
            )
        elif video_features is not None:
            videos = BaseModelOutputWithPooling(pooler_output=pooled_features(video_features))
        return images, videos

    def embed(
        self,
        input_ids: torch.LongTensor,
        images: BaseModelOutputWithPooling | None,
        videos: BaseModelOutputWithPooling | None,
    ) -> torch.Tensor:
        """Token embeddings (batch, tokens, hidden) with what `encode_visual` returned at its placeholders.

        Raises:
            ValueError: placeholders without features, features without placeholders, or their numbers differ.
        """
        ids = input_ids.to(execution_device(self.get_input_embeddings(), input_ids))
        is_video, is_image = ids == self.config.video_token_id, ids == self.config.image_token_id
        # The placeholders' own embeddings are never used, and their ids may lie outside the vocabulary.
        embeddings = self.get_input_embeddings()(ids.masked_fill(is_video | is_image, 0))
        for what, marked, outputs in (("video", is_video, videos), ("image", is_image, images)):
            features = None if outputs is None else outputs.pooler_output
            embeddings = scatter_features(embeddings, marked, features, what)
        return embeddings

    def merge_features(self, input_ids: torch.LongTensor, **visual: Any) -> torch.Tensor:
        """Token embeddings (batch, tokens, hidden) with visual features at their placeholders, for `inputs_embeds`.

        Args:
            visual: of `encode_visual`.

        Raises:
            ValueError: placeholders without features, features without placeholders, or their numbers differ.
        """
        return self.embed(input_ids, *self.encode_visual(input_ids, **visual))

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
            output_hidden_states: the argument of `forward`, which a head of one's own is trained with; the ids need no
                masks then. The config's is no such sign: it may be set for anything.

        Raises:
            ValueError: none is masked, where most batches before were not either (see `check_is_masked`). Who masks by
                himself may draw no mask for a batch.
        """
        if output_hidden_states or input_ids is None or not (self.training and torch.is_grad_enabled()):
            return
        is_masked = (input_ids == self.config.mask_token_id).any()
        if is_tracing(input_ids):
            check_is_masked(is_masked)
        elif is_masked:
            self._masked_ahead = min(self._masked_ahead + 1, LONGEST_UNMASKED)
        else:
            self._masked_ahead -= self._masked_ahead > 0
            check_is_masked(self._masked_ahead > 0)

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
        video_features: BaseModelOutputWithPooling | Sequence[torch.Tensor] | torch.Tensor | None = None,
        vision_batch_size: int | None = 16,
        **kwargs: Any,
    ) -> VidLaDAModelOutput:
        """Hidden states of every token. See `VidLaDAForConditionalGeneration.forward` for the arguments."""
        require_one(input_ids, inputs_embeds)
        # TRL's trainers pass the head's forward by and apply the head themselves. An argument that belongs to causal
        # models gives them away.
        if self._belongs_to_head and "use_cache" in kwargs:
            self.check_training_ids(input_ids, kwargs.get("output_hidden_states"))
        images = videos = None
        if input_ids is not None:
            images, videos = self.encode_visual(
                input_ids, pixel_values, pixel_values_videos, num_frames_per_video, video_features, vision_batch_size
            )
            inputs_embeds = self.embed(input_ids, images, videos)
        elif any(given is not None for given in (pixel_values, pixel_values_videos, video_features)):
            raise ValueError(
                "Visual inputs need `input_ids`, whose placeholders say where they go. Pass `input_ids`, or merge them "
                "yourself with `merge_features` and pass the result as `inputs_embeds`."
            )
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=move_to(inputs_embeds, attention_mask),
            position_ids=move_to(inputs_embeds, position_ids),
            return_dict=True,
            **kwargs,
        )
        return VidLaDAModelOutput(**outputs, image_outputs=images, video_outputs=videos)


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

    def get_video_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        """As `VidLaDAModel.get_video_features`."""
        return self.model.get_video_features(*args, **kwargs)

    def get_image_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        """As `VidLaDAModel.get_image_features`."""
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
        visual = flatten_visual(visual, input_ids, self.config)
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
        video_features: BaseModelOutputWithPooling | Sequence[torch.Tensor] | torch.Tensor | None = None,
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
            num_frames_per_video: (videos,), frames of each video. Both may also come as a row for each example, padded
                (see `padded_visual_vidlada`): pixels (batch, frames or images, 3, side, side), counts (batch, videos).
            video_features: instead of pixels, what `get_video_features` returned, or its `pooler_output`.
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
        kwargs.pop("use_cache", None)  # for causal models; the body would take its caller for another head
        outputs = self.model(input_ids=input_ids, inputs_embeds=inputs_embeds, return_dict=True, **visual, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        towers = {"image_outputs": outputs.image_outputs, "video_outputs": outputs.video_outputs}
        return VidLaDAOutput(None, logits, outputs.hidden_states, outputs.attentions, **towers)


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
