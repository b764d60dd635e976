"""InstantID: gives generated people the identity of a face (arXiv:2401.07519)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from refiners_core import Adapter, Chain, Edit, Multiply, Source
from refiners_core.errors import AdapterError
from refiners_core.layers import MaskMap, MaskTokens
from refiners_core.models.control import build_control, control_edits
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.face import Detector, FacePack, default_detector
from refiners_core.models.image_prompt import (
    Resampler,
    ResamplerConfig,
    image_attentions,
    image_edits,
)
from refiners_core.option import number
from refiners_core.weights import load, published, write
from refiners_core.weights import read as read_weights
from refiners_instantid.checkpoint import INSTANTID_KEYS, resampler_config
from refiners_instantid.face_pack import ANTELOPE
from refiners_instantid.identity import detected, read
from refiners_instantid.keypoint import RELEASED, Pen

IMAGE_FILE: Final = "ip-adapter.safetensors"
"""The published name of the image prompt."""
CONTROL_FILE: Final = "ControlNetModel/diffusion_pytorch_model.safetensors"
"""The published name of the side network."""


class InstantId(Adapter):
    """Gives the people in generated pictures the face of a person (arXiv:2401.07519, section 3).

    It has two halves. The image prompt turns the face into a few tokens, to which the UNet attends
    beside the text. The side network (the IdentityNet of section 3.3) reads those tokens in place
    of the text, and the keypoints of the face, which place it. Several InstantIDs add up.

    The condition is a mapping: `face`, an embedding of 512 numbers or a picture, or one per
    generated picture; and `keypoints`, five points or a picture of them. A face given as a picture
    brings its own keypoints unless others are given. The unconditional branch receives the tokens
    of an embedding of zeros.

    Args:
        image_scale: The strength of the image prompt, multiplied by the scale of the condition. It
            may be changed between generations; 0 skips the image prompt.
        control_scale: The strength of the side network, in the same way.
        detector: Finds faces in pictures: a prepared `insightface.app.FaceAnalysis`. By default
            one is made from the models in `~/.insightface` when it is first needed.
        resampler: For an untrained adapter, the sizes of the resampler that turns a face into
            tokens.
        channels: For an untrained adapter, the channels of each level of the keypoints' encoder.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A scale is not a finite number.

    Example:
        >>> InstantId(name="instantid", image_scale=0.5).inputs
        ('face',)
    """

    takes_condition: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("face",)
    optional_inputs: ClassVar[tuple[str, ...]] = ("keypoints",)
    learned_files: ClassVar[tuple[str, ...]] = ("weights", "control")
    pack: FacePack = ANTELOPE
    """The face models that it was trained with; a variant may name others."""
    pen: Pen = RELEASED
    """How keypoints are drawn; a variant may state `pen = { radius, half-width }`."""

    def __init__(
        self,
        *,
        image_scale: float = 0.8,
        control_scale: float = 0.8,
        detector: Detector | None = None,
        resampler: ResamplerConfig | None = None,
        channels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.image_scale = image_scale
        self.control_scale = control_scale
        self._check_scales()
        self.detector = detector
        self.resampler_config: Final = resampler
        self.channels: Final = channels
        self.tokens_key: Final = self.context_key("tokens")
        self.features_key: Final = self.context_key("features")
        self.image_key: Final = self.context_key("image-scale")
        self.control_key: Final = self.context_key("control-scale")
        self.mask_key: Final = self.context_key("mask")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds both halves in the sizes of the model's UNet and loads their weights.

        Raises:
            WeightsError: A file is not that of an InstantID for a model of these sizes.
            AdapterError: The variant's `face` settings are malformed.
        """
        unet = model.unet
        if source is not None:
            self.pack = type(self).pack.following(source.settings, self.key)
            self.pen = source.sizes("pen", Pen) or RELEASED
        is_untrained = source is None or "weights" not in source.files
        channels = self.channels
        if source is None or is_untrained:
            config = self.resampler_config or ResamplerConfig(features=self.pack.width)
            if source is not None:
                known = {"features": self.pack.width}
                stated = source.sizes("resampler", ResamplerConfig, **known)
                config = self.resampler_config or stated or config
                channels = channels or source.settings.get("channels")
            with built_on(unet.device):
                parts = self._parts(model, replace(config, out_width=unet.config.text_width))
            self.parts = parts.to(unet.dtype)
        else:
            tensors = read_weights(source.files["weights"])
            config = resampler_config(tensors, unet.config.text_width, self.pack.width)
            with built_on("meta"):
                self.parts = self._parts(model, config)
            load(self.parts, tensors, INSTANTID_KEYS, dtype=unet.dtype, device=unet.device)
            self.parts.requires_grad_(False)
        self.control = build_control(
            model,
            None if source is None or is_untrained else source.files["control"],
            features=self.features_key,
            text=self.tokens_key,
            channels=channels,
        )

    @torch.no_grad()
    def start(self, model: LatentDiffusion) -> None:
        """Copies the encoder of the UNet, and sets the value projections to zero."""
        self.control.copy_encoder(model.unet)
        for name, weight in self.parts.layer("branches", Chain).named_parameters():
            if name.endswith("to_v_ip.weight"):
                weight.zero_()

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet, and adds an attention to the face's tokens to
        each cross-attention."""
        image, control, mask = self.image_key, self.control_key, self.mask_key

        def map_layers() -> Mapping[str, nn.Module]:
            return {"strength": Multiply(control), "mask": MaskMap(mask)}

        def token_layers() -> Mapping[str, nn.Module]:
            return {"strength": Multiply(image), "mask": MaskTokens(mask)}

        network, branches = self.control.network, self.parts.layer("branches", Chain)
        return (
            *control_edits(model, network, self.context_key, map_layers, self.scale_key),
            *image_edits(model, branches, token_layers, when=image),
        )

    def check(self, value: Mapping[str, Any], request: GenerationRequest) -> None:
        """Refuses a face or keypoints that cannot be read. Does not run the face detector.

        Raises:
            ConditionError: The face or the keypoints are malformed, their count does not match the
                generated pictures, or the side network was trained for latents of another size.
            AdapterError: A scale is not a finite number.
        """
        self._check_scales()
        self.control.check_size(request, self.key)
        if read(value, request, self.key, self.pack, self.pen).portraits and self.detector is None:
            default_detector(self.key, self.pack)

    def encode(
        self, value: Mapping[str, Any], request: GenerationRequest
    ) -> dict[str, dict[str, Tensor]]:
        """Encodes a face as tokens, and its keypoints as features of the side network.

        Args:
            value: `face`, and `keypoints`, which may be omitted if the face is a picture.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`, or no face is found.
        """
        faces, drawn = detected(value, request, self.key, self.detector, self.pack, self.pen)
        like: dict[str, Any] = {"device": request.device, "dtype": request.dtype}
        faces, resampler = faces.to(**like)[:, None], self.parts.layer("projection", Resampler)
        values = {
            self.tokens_key: {
                "cond": resampler(faces),
                "uncond": resampler(torch.zeros_like(faces[:1])),
            }
        }
        if self.image_scale != 0:
            values[self.image_key] = {"cond": torch.full((1, 1, 1), self.image_scale, **like)}
        if self.control_scale != 0:
            values[self.control_key] = {
                "cond": torch.full((1, 1, 1, 1), self.control_scale, **like)
            }
            values[self.features_key] = {"cond": self.control.features(drawn, request)}
        if request.mask is not None:
            side = (request.latent_height, request.latent_width)
            values[self.mask_key] = {"cond": adaptive_avg_pool2d(request.mask, side)}
        return values

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights of both files under their published keys, which do not overlap."""
        return {**published(self.parts, INSTANTID_KEYS), **self.control.published()}

    def saved_path(self, folder: Path, name: str) -> Path:
        """Returns the folder of both files."""
        return folder / name

    def saved_files(self, path: Path) -> Mapping[str, Path]:
        """Returns the image prompt, `weights`, and the side network, `control`."""
        return {"weights": path / IMAGE_FILE, "control": path / CONTROL_FILE}

    def save(self, path: str | Path) -> None:
        """Writes the weights in the layout of `InstantX/InstantID`, as safetensors.

        Args:
            path: A folder, created if missing. It receives `ip-adapter.safetensors` and
                `ControlNetModel/`.

        Raises:
            AdapterError: The path is a file.
        """
        folder = Path(path)
        if folder.suffix == ".safetensors" or folder.is_file():
            raise AdapterError(
                f"{self.key} is saved as two files, not as {folder}.",
                hint=f"Give a folder: save({str(folder.with_suffix(''))!r}).",
            )
        files = self.saved_files(folder)
        files["control"].parent.mkdir(parents=True, exist_ok=True)
        write(published(self.parts, INSTANTID_KEYS), files["weights"])
        write(self.control.published(), files["control"])

    def _parts(self, model: LatentDiffusion, config: ResamplerConfig) -> Chain:
        return Chain(
            projection=Resampler(config),
            branches=image_attentions(model, self.tokens_key, self.scale_key),
        )

    def _check_scales(self) -> None:
        for name in ("image_scale", "control_scale"):
            number(name, getattr(self, name), 0.8, of=self.key)
