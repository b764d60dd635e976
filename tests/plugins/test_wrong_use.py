"""Wrong uses of the adapters and their error messages, word for word.

The messages are in `data/wrong_use.toml`. To see a changed message, empty its entry and run the
test: the failure shows it.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from PIL import Image
from refiners_bottleneck.adapter import Bottleneck
from refiners_bottleneck.fusion import Fusion
from refiners_cache.deep import DeepCache
from refiners_controllora.adapter import ControlLora
from refiners_controlnet.adapter import ControlNet
from refiners_controlnet.union import UnionControlNet
from refiners_ella.adapter import Ella
from refiners_ella.connector import ConnectorConfig
from refiners_freeu.fresca import FreSca
from refiners_guidance.plus_plus import PlusPlus
from refiners_guidance.projected import Projected
from refiners_iclight.adapter import BackgroundLight, ForegroundLight
from refiners_instantid.adapter import InstantId
from refiners_inversion.adapter import DdimInversion
from refiners_ipadapter.adapter import IpAdapter
from refiners_ipadapter.face_id import FaceId
from refiners_ipadapter.face_plus import FaceIdPlus
from refiners_lora.adapter import Lora
from refiners_palette.adapter import PaletteAdapter
from refiners_preprocessors import canny
from refiners_reference.attention import ReferenceOnly
from refiners_regional.prompt import RegionalPrompts
from refiners_regional.tiled import MultiDiffusion
from refiners_regional.upscaler import upscale
from refiners_stylealigned.adapter import StyleAligned
from refiners_t2iadapter.adapter import T2iAdapter
from refiners_textualinversion.adapter import TextualInversion
from refiners_tokens.merge import TokenMerging
from torch import nn

from refiners_core import Adapter, Condition, Source, compose
from refiners_core.errors import RefinersError
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.models.t5 import T5Config, T5Tokenizer
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import tiny_language_model, tiny_model, tiny_sdxl, tiny_t5_tokenizer
from refiners_core.weights import write

MESSAGES: Mapping[str, str] = tomllib.loads(
    (Path(__file__).parent / "data" / "wrong_use.toml").read_text()
)
PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4))
FACE = torch.linspace(-1, 1, 512)
POINTS = [(10, 12), (22, 12), (16, 17), (11, 23), (21, 23)]
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
ATTN = "mid_block.attentions.0.transformer_blocks.0.attn1"
KEY = QUERY.replace("attn1_to_q", "attn2_to_k")
PROJECTION = "base_model.model.model.layers.0.self_attn.q_proj"
VALUES = PROJECTION.replace("q_proj", "v_proj")
TOKENS = "base_model.model.model.embed_tokens.trainable_tokens_delta"


def control() -> ControlNet:
    return ControlNet(channels=(4, 8, 8), key="controlnet")


def union() -> UnionControlNet:
    return UnionControlNet(channels=(4, 8, 8), key="union")


TINY_ENCODER = ClipImageConfig(
    image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)


def image_prompt(**options: Any) -> IpAdapter:
    return IpAdapter(encoder=TINY_ENCODER, tokens=2, key="ip-adapter", **options)


def face(**options: Any) -> FaceId:
    return FaceId(rank=2, key="faceid", **options)


def identity() -> InstantId:
    sizes = ResamplerConfig(width=16, heads=1, depth=1, inner=16, tokens=2)
    return InstantId(resampler=sizes, channels=(4, 8, 8), key="instantid")


def maps() -> T2iAdapter:
    return T2iAdapter(key="t2i")


def reference() -> ReferenceOnly:
    return ReferenceOnly(key="reference-only")


def regions() -> RegionalPrompts:
    return RegionalPrompts(key="regions")


def inversion() -> DdimInversion:
    return DdimInversion(key="inversion")


def style() -> StyleAligned:
    return StyleAligned(key="style-aligned")


def light() -> ForegroundLight:
    return ForegroundLight(key="ic-light-fc")


def inpainting() -> LatentDiffusion:
    sizes: dict[str, Any] = {"channels": (8, 16), "layers": (1, 1), "depths": (1, 1)}
    unet = UNetConfig(**sizes, heads=(2, 2), in_channels=9, text_width=8, groups=4)
    return tiny_model(unet=unet)


def ella(tokenizer: T5Tokenizer | None = None) -> Ella:
    encoder = T5Config(vocabulary=110, width=8, inner_width=8, layers=1, heads=1, head_width=8)
    sizes = ConnectorConfig(features=8, width=8, tokens=2, layers=1, heads=1, waves=4)
    return Ella(encoder=encoder, connector=sizes, tokenizer=tokenizer, key="ella")


def palette() -> PaletteAdapter:
    return PaletteAdapter(key="palette")


def pair(name: str, rows: int = 16, columns: int = 16) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_up.weight": torch.ones(rows, 2),
        f"{name}.lora_down.weight": torch.ones(2, columns),
    }


def peft(name: str, rows: int = 16, columns: int = 16) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_A.weight": torch.ones(2, columns),
        f"{name}.lora_B.weight": torch.ones(rows, 2),
    }


def loha(name: str, width: int = 16) -> dict[str, torch.Tensor]:
    shapes = {"w1_a": (16, 2), "w1_b": (2, width), "w2_a": (16, 2), "w2_b": (2, width)}
    return {f"{name}.hada_{role}": torch.ones(shape) for role, shape in shapes.items()}


class Bench:
    """A model, a folder for files, and ways to misuse them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: Any = tiny_model()

    def generate(
        self, make: Callable[[], Adapter], value: Any, *, sdxl: bool = False, **options: Any
    ) -> None:
        self.model = tiny_sdxl() if sdxl else tiny_model()
        adapter = make().inject(self.model)
        conditions = {} if value is ... else {adapter: value}
        arguments = {"steps": 2, "progress": False, "conditions": conditions, **options}
        self.model.generate(arguments.pop("prompt", ["a cat", "a dog"]), **arguments)

    def face(self, face: Any, keypoints: Any = POINTS) -> None:
        self.generate(identity, {"face": face, "keypoints": keypoints}, sdxl=True, prompt="a cat")

    def lora(self, tensors: Mapping[str, torch.Tensor], *, sdxl: bool = False) -> None:
        self.model = tiny_sdxl() if sdxl else tiny_model()
        path = self.folder / "style.safetensors"
        write(tensors, path)
        refiners.load_adapter("lora", self.model, file=path)

    def text(
        self, tensors: Mapping[str, torch.Tensor], *, config: bool = True, **fields: Any
    ) -> None:
        """Puts an adapter on a language model, as PEFT saves it in a folder `tone`."""
        self.model = tiny_language_model()  # pyright: ignore[reportAttributeAccessIssue]
        folder = self.folder / "tone"
        folder.mkdir()
        write(tensors, folder / "adapter_model.safetensors")
        known = {"peft_type": "LORA", "base_model_name_or_path": "org/base-1B", **fields}
        if config:
            (folder / "adapter_config.json").write_text(json.dumps(known))
        refiners.load_adapter(folder, self.model)

    def texts(self, condition: Condition) -> None:
        """Writes two texts with an adapter under a condition."""
        model = tiny_language_model()
        adapter = Lora(rank=2, key="tone").inject(model)
        model.generate(["One", "Two"], conditions={adapter: condition}, max_new_tokens=2)

    def untrained(self, condition: Condition, merged: float | None = None) -> None:
        self.model = tiny_model()
        adapter = Lora(rank=2, key="lora").inject(self.model)
        if merged is not None:
            adapter.merge(merged)
        self.model.generate("a cat", conditions={adapter: condition}, steps=2, progress=False)

    def word(self, tensors: Mapping[str, torch.Tensor], **options: Any) -> None:
        path = self.folder / "learned_embeds.safetensors"
        write(tensors, path)
        refiners.load_adapter(path, self.model, **options)

    def bottleneck(self, config: Mapping[str, Any] | None = None, **about: Any) -> None:
        """Loads the folder of a bottleneck adapter, in which some fields were changed."""
        self.model = tiny_language_model()
        adapter = Bottleneck(reduction_factor=4, key="bottleneck").inject(self.model)
        adapter.save(self.folder / "a")
        adapter.eject()
        path = self.folder / "a" / "adapter_config.json"
        fields = json.loads(path.read_text())
        fields["config"].update(config or {})
        path.write_text(json.dumps({**fields, **about}))
        refiners.load_adapter(self.folder / "a", self.model)

    def fused(self, second: str, *, is_worn: bool = False) -> None:
        self.model = tiny_language_model()
        adapters = [Bottleneck(key="a"), Bottleneck(config=second, key="b")]
        if is_worn:
            adapters[0].inject(self.model)
        Fusion(adapters=adapters, key="fusion").inject(self.model)

    def pickle(self, name: str) -> None:
        path = self.folder / "cat.pt"
        torch.save({"<cat>": VECTORS}, path)
        refiners.load_adapter(name, self.model, file=path)

    def file(self, make: Callable[..., Adapter], tensors: Mapping[str, torch.Tensor]) -> None:
        path = self.folder / "other.safetensors"
        write(tensors, path)
        files = dict.fromkeys(("weights", "encoder", "control"), path)
        make(weights=lambda _: Source(files), key="adapter").inject(self.model)

    def changed(
        self, make: Callable[..., Adapter], change: Callable[[dict[str, torch.Tensor]], Any]
    ) -> None:
        """Reads a file that an untrained adapter saved, after a change of its tensors."""
        donor = tiny_model()
        made = make(channels=(4, 8, 8)).inject(donor)
        self.file(make, change(dict(made.published())))

    def named(self, name: str, *, sdxl: bool = False, **options: Any) -> None:
        self.model = tiny_sdxl() if sdxl else tiny_model()
        refiners.load_adapter(name, self.model, **options)


ONE, VECTORS = torch.ones(1), torch.ones(2, 8)
USES: Mapping[str, Callable[[Bench], None]] = {
    "no face": lambda b: b.generate(identity, {"keypoints": POINTS}, sdxl=True),
    "a face of 256 numbers": lambda b: b.face(FACE[:256]),
    "a face that is not a number": lambda b: b.face(FACE / 0),
    "two faces for one picture": lambda b: b.face(torch.stack([FACE] * 2)),
    "four keypoints": lambda b: b.face(FACE, POINTS[:4]),
    "a keypoint outside the picture": lambda b: b.face(FACE, [*POINTS[:4], (40, 3)]),
    "a face by its numbers without keypoints": lambda b: b.face(FACE, None),
    "InstantID on Stable Diffusion 1.5": lambda b: b.named("instantid"),
    "another file for InstantID": lambda b: b.file(InstantId, {"a": ONE}),
    "a batch of one with StyleAligned": lambda b: b.generate(style, ..., prompt="a cat"),
    "a mask for StyleAligned": lambda b: b.generate(style, Condition(mask=PICTURE)),
    "two pictures for StyleAligned": lambda b: b.generate(style, [PICTURE, PICTURE]),
    "a text for StyleAligned": lambda b: b.generate(style, "style.png"),
    "APG without guidance": lambda b: b.generate(lambda: Projected(key="apg"), ..., guidance=1.0),
    "APG beside TCFG": lambda b: (b.named("tcfg"), refiners.load_adapter("apg", b.model)),
    "an unknown space of APG": lambda b: b.named("apg", space="noise"),
    "autoguidance with the name of a model": lambda b: b.named(
        "autoguidance", weak="sd15", key="autoguidance"
    ),
    "CFG++ with a sampler of the second order": lambda b: b.generate(
        lambda: PlusPlus(key="cfg-plus-plus"), ..., sampler="dpm++-2m"
    ),
    "a negative strength of PAG": lambda b: b.named("pag", strength=-1),
    "PAG in a layer that is not there": lambda b: b.named("pag", layers="middle"),
    "a percentile of 95": lambda b: b.named("dynamic-thresholding", percentile=95),
    "FreeU of version 3": lambda b: b.named("freeu", version=3),
    "FreeU in unknown stages": lambda b: b.named("freeu", stages="both"),
    "FreSca on small latents": lambda b: b.generate(lambda: FreSca(key="fresca"), ...),
    "an interval of 0": lambda b: b.named("deepcache", interval=0),
    "a skip connection that is not there": lambda b: b.named("deepcache", branch=40),
    "a center after the last call": lambda b: b.generate(
        lambda: DeepCache(center=15, key="deepcache"), ...
    ),
    "two caches of one kind": lambda b: (
        b.named("deepcache"),
        refiners.load_adapter("teacache", b.model),
    ),
    "a scale of DeepCache by picture": lambda b: b.generate(
        lambda: DeepCache(key="deepcache"), Condition(scale=[1.0, 0.0])
    ),
    "a gate as a share": lambda b: b.named("t-gate", gate_step=0.4),
    "a threshold that is not a number": lambda b: b.named("first-block-cache", threshold="low"),
    "a polynomial as a number": lambda b: b.named("teacache", rescale=2.0),
    "a ratio of 50": lambda b: b.named("tome", ratio=50),
    "a downsampling of 3": lambda b: b.named("tome", max_downsample=3),
    "merged tokens in tiles": lambda b: (
        b.named("tome"),
        refiners.load_adapter("hypertile", b.model),
    ),
    "a bottleneck on an image model": lambda b: Bottleneck(key="bottleneck").inject(b.model),
    "a bottleneck of another family": lambda b: b.bottleneck(
        model_type="bert", model_name="bert-base-uncased"
    ),
    "a bottleneck of another width": lambda b: b.bottleneck(hidden_size=768),
    "a bottleneck with an invertible adapter": lambda b: b.bottleneck({"inv_adapter": "nice"}),
    "a bottleneck with an unknown field": lambda b: b.bottleneck({"new_field": 3}),
    "a bottleneck with an unknown residual": lambda b: b.bottleneck({"residual_before_ln": 2}),
    "a LoRA of AdapterHub": lambda b: b.bottleneck({"architecture": "lora"}),
    "a bottleneck of an unknown form": lambda b: Bottleneck(config="wide"),
    "a fusion of a worn adapter": lambda b: b.fused("seq_bn", is_worn=True),
    "a fusion of two forms": lambda b: b.fused("par_bn"),
    "a stack of one": lambda b: compose.stack(Bottleneck()),
    "an average without weight": lambda b: compose.average(
        Bottleneck(), Bottleneck(), weights=[1, -1]
    ),
    "tiles of 4 pixels": lambda b: b.named("hypertile", tile_size=4),
    "merged tokens of a level without attention": lambda b: b.generate(
        lambda: TokenMerging(max_downsample=1, key="tome"), ..., sdxl=True
    ),
    "a depth of 4": lambda b: b.named("hypertile", max_depth=4),
    "a picture for token merging": lambda b: b.generate(lambda: TokenMerging(key="tome"), PICTURE),
    "a negative guidance of inversion": lambda b: b.named("style-aligned", inversion_guidance=-1),
    "nothing for reference-only": lambda b: b.generate(reference, ...),
    "a text for reference-only": lambda b: b.generate(reference, "reference.png"),
    "three references for two pictures": lambda b: b.generate(reference, [PICTURE] * 3),
    "a mask for reference-only": lambda b: b.generate(reference, Condition(PICTURE, mask=PICTURE)),
    "a preprocessor for reference-only": lambda b: b.generate(
        reference, Condition(PICTURE, preprocess=True)
    ),
    "a style fidelity of 2": lambda b: b.named("reference-only", style_fidelity=2),
    "a norm weight of 3": lambda b: b.named("reference-adain", norm_weight=3),
    "an attention weight for reference-adain": lambda b: b.named(
        "reference-adain", attention_weight=0.5
    ),
    "a path for invert": lambda b: tiny_model().invert("seen.png", "a cat"),
    "two pictures for invert": lambda b: tiny_model().invert([PICTURE, PICTURE], "a cat"),
    "two prompts for invert": lambda b: tiny_model().invert(PICTURE, ["a cat", "a dog"]),
    "a text for regions": lambda b: b.generate(regions, "a cat"),
    "a region without a prompt": lambda b: b.generate(regions, [{"box": (0, 0, 1, 1)}]),
    "a box in pixels": lambda b: b.generate(regions, [{"prompt": "a", "box": (0, 0, 16, 32)}]),
    "a region with a LoRA that is not worn": lambda b: b.generate(
        regions, [{"prompt": "a", "conditions": {Lora(rank=2, key="style"): 1.0}}]
    ),
    "regions of three pictures for two": lambda b: b.generate(regions, [[{"prompt": "a"}]] * 3),
    "an unknown mode of regions": lambda b: b.named("regional-prompts", mode="pixels"),
    "a stride larger than the window": lambda b: MultiDiffusion(
        key="windows", window=16, stride=32
    ).inject(b.model),
    "a window of half a latent": lambda b: MultiDiffusion(key="windows", window=18).inject(b.model),
    "a factor below one": lambda b: upscale(b.model, PICTURE, factor=0.5),
    "a block after the last one": lambda b: b.named("kohya-hires", block=9),
    "a text for an inversion": lambda b: b.generate(inversion, "seen.png"),
    "nothing for an inversion": lambda b: b.generate(inversion, ...),
    "three pictures to invert for two": lambda b: b.generate(inversion, [PICTURE] * 3),
    "an unknown input of an inversion": lambda b: b.generate(
        inversion, {"picture": PICTURE, "text": "a cat"}
    ),
    "a negative number of repeats": lambda b: b.named("renoise", repeats=-1),
    "runs that are not a span": lambda b: b.named("renoise", average=4),
    "a share that is not a number": lambda b: b.named("style-aligned", share=float("nan")),
    "a Stable Diffusion XL LoRA on 1.5": lambda b: b.lora(pair(KEY, 16, 2048)),
    "a Stable Diffusion 1.5 LoRA on XL": lambda b: b.lora(pair(KEY, 16, 768), sdxl=True),
    "an adapter of a wider language model": lambda b: b.text(peft(PROJECTION, 64, 64)),
    "an adapter of a language model with other heads": lambda b: b.text(peft(VALUES, 16, 16)),
    "an adapter with another vocabulary": lambda b: b.text(
        {**peft(PROJECTION), "base_model.model.lm_head.weight": torch.ones(300, 16)}
    ),
    "an adapter for other layers of a language model": lambda b: b.text(
        peft(PROJECTION.replace("q_proj", "qkv_proj"))
    ),
    "an adapter that replicates layers": lambda b: b.text(
        peft(PROJECTION), layer_replication=[[0, 2], [1, 2]]
    ),
    "an adapter that begins with PiSSA": lambda b: b.text(
        peft(PROJECTION), init_lora_weights="pissa_niter_4"
    ),
    "a method of PEFT that is not read": lambda b: b.text(peft(PROJECTION), peft_type="XLORA"),
    "an AdaLoRA without its configuration": lambda b: b.text(
        {
            f"{PROJECTION}.lora_A": torch.ones(2, 16),
            f"{PROJECTION}.lora_B": torch.ones(16, 2),
            f"{PROJECTION}.lora_E": torch.ones(2, 1),
        },
        config=False,
    ),
    "trained tokens without their ids": lambda b: b.text({TOKENS: torch.ones(2, 16)}),
    "trained tokens past the vocabulary": lambda b: b.text(
        {TOKENS: torch.ones(1, 16)}, peft_type="TRAINABLE_TOKENS", token_indices=[400]
    ),
    "three scales for two texts": lambda b: b.texts(Condition(scale=[1, 0, 1])),
    "a schedule for texts": lambda b: b.texts(Condition(scale=[(0.0, 1.0), (1.0, 0.0)])),
    "a mask for texts": lambda b: b.texts(Condition(mask=PICTURE)),
    "a LoRA of a language model on Stable Diffusion": lambda b: b.lora(peft(PROJECTION)),
    "a LoRA of unknown keys": lambda b: b.lora(pair("lora_unet_somewhere_else")),
    "a LoRA for Flux": lambda b: b.lora(pair("lora_unet_double_blocks_0_img_attn_qkv")),
    "half a LoRA": lambda b: b.lora({f"{QUERY}.lora_up.weight": torch.ones(16, 2)}),
    "a LoRA of other sizes": lambda b: b.lora(pair(QUERY, 64, 64)),
    "a LoRA that is not a number": lambda b: b.lora(
        {**pair(QUERY), f"{QUERY}.lora_up.weight": torch.full((16, 2), torch.nan)}
    ),
    "a DoRA": lambda b: b.lora({**pair(QUERY), f"{QUERY}.dora_scale": ONE}),
    "half a LoHa": lambda b: b.lora({f"{QUERY}.hada_w1_a": torch.ones(16, 2)}),
    "a LoHa with one core": lambda b: b.lora(
        {**loha(QUERY), f"{QUERY}.hada_t1": torch.ones(2, 2, 1, 1)}
    ),
    "a LoHa of other sizes": lambda b: b.lora(loha(QUERY, 20)),
    "a LoHa that is not a number": lambda b: b.lora(
        {**loha(QUERY), f"{QUERY}.hada_w2_b": torch.full((2, 16), torch.nan)}
    ),
    "a LoKr without its second factor": lambda b: b.lora({f"{QUERY}.lokr_w1": torch.ones(2, 2)}),
    "an OFT of other sizes": lambda b: b.lora({f"{QUERY}.oft_blocks": torch.ones(3, 4, 4)}),
    "an OFT of PEFT without its configuration": lambda b: b.lora(
        {f"base_model.model.{ATTN}.to_q.oft_R.weight": torch.ones(4, 6)}
    ),
    "a BOFT of PEFT of other sizes": lambda b: b.lora(
        {f"base_model.model.{ATTN}.to_q.boft_R": torch.ones(1, 3, 4, 4)}
    ),
    "two methods for one layer": lambda b: b.lora({**pair(QUERY), **loha(QUERY)}),
    "a LoRA for a norm": lambda b: b.lora(pair("lora_unet_mid_block_resnets_0_norm1")),
    "a LoRA with two strengths": lambda b: b.lora({**pair(QUERY), f"{QUERY}.alpha": torch.ones(2)}),
    "a mask of no picture for a LoRA": lambda b: b.untrained(Condition(mask="left")),
    "two masks for a LoRA": lambda b: b.untrained(Condition(mask=torch.ones(2, 1, 32, 32))),
    "another strength for a merged LoRA": lambda b: b.untrained(Condition(scale=0.5), merged=0.8),
    "a ControlNet as a LoRA": lambda b: b.lora({"controlnet_cond_embedding.conv_in.weight": ONE}),
    "a LoRA without a file": lambda b: b.named("lora"),
    "a LoRA that is not there": lambda b: b.named("lora", file="nowhere/style.safetensors"),
    "a picture of one channel too many for a T2I-Adapter": lambda b: b.generate(
        maps, torch.rand(5, 32, 32)
    ),
    "colours for a T2I-Adapter that reads grey": lambda b: b.generate(
        lambda: T2iAdapter(picture_channels=1, key="t2i"), PICTURE
    ),
    "a size that a T2I-Adapter cannot divide": lambda b: b.generate(
        maps, PICTURE, sdxl=True, size=36
    ),
    "another file for a T2I-Adapter": lambda b: b.file(T2iAdapter, {"a": ONE}),
    "a text for a ControlNet": lambda b: b.generate(control, "edges.png"),
    "nothing for a ControlNet": lambda b: b.generate(control, ...),
    "three pictures for two": lambda b: b.generate(control, [Image.new("RGB", (32, 32))] * 3),
    "an embedding of Stable Diffusion 1.5 on a model of other sizes": lambda b: b.word(
        {"<cat>": torch.ones(768)}
    ),
    "an embedding of Stable Diffusion XL on 1.5": lambda b: b.word(
        {"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}
    ),
    "an embedding for a second encoder that is not there": lambda b: b.word(
        {"clip_l": VECTORS, "clip_g": VECTORS}
    ),
    "an embedding of Stable Diffusion 3": lambda b: b.word(
        {"clip_l": VECTORS, "clip_g": VECTORS, "t5xxl": VECTORS}
    ),
    "an embedding that is not a number": lambda b: b.word({"<cat>": VECTORS * torch.nan}),
    "an embedding of a word that the model knows": lambda b: b.word({"<cat>": VECTORS}, word="x"),
    "an embedding of a word that another one brings": lambda b: (
        TextualInversion(word="<cat>", key="first").inject(b.model),
        b.word({"<cat>": VECTORS}),
    ),
    "an embedding of a word that is a weight": lambda b: b.word({"<cat>": VECTORS}, word="(a:2)"),
    "more vectors than a prompt has tokens": lambda b: b.word({"<cat>": torch.ones(15, 8)}),
    "a picture for a word": lambda b: b.generate(
        lambda: TextualInversion(word="<cat>", key="word"), PICTURE
    ),
    "an embedding as a pickle": lambda b: b.pickle("textual-inversion"),
    "another file as an embedding": lambda b: b.file(
        TextualInversion, {"a.b": torch.ones(2, 2, 2)}
    ),
    "guess mode by an unknown formula": lambda b: b.generate(
        lambda: ControlNet(guess="strong", key="controlnet"), PICTURE
    ),
    "ten weights for five outputs": lambda b: b.generate(
        lambda: ControlNet(channels=(4, 8, 8), layers=[1.0] * 10, key="controlnet"), PICTURE
    ),
    "guess mode and weights": lambda b: b.generate(
        lambda: ControlNet(channels=(4, 8, 8), guess="original", layers=[1.0], key="controlnet"),
        PICTURE,
    ),
    "a ControlNet that is not a number": lambda b: b.changed(
        ControlNet, lambda t: t | {"conv_in.bias": torch.full((8,), torch.nan)}
    ),
    "a ControlNet for another family": lambda b: b.changed(
        ControlNet,
        lambda t: {
            k: torch.ones(8, 2048) if k.endswith("attn2.to_k.weight") else v for k, v in t.items()
        },
    ),
    "a ControlNet that reads one channel": lambda b: b.changed(
        ControlNet,
        lambda t: t | {"controlnet_cond_embedding.conv_in.weight": torch.ones(4, 1, 3, 3)},
    ),
    "a union as a ControlNet": lambda b: b.changed(
        ControlNet, lambda t: t | {"task_embedding": ONE}
    ),
    "a ControlNet as a union": lambda b: b.file(
        UnionControlNet, ControlNet(channels=(4, 8, 8)).inject(tiny_model()).published()
    ),
    "a control type that the file lacks": lambda b: b.generate(union, {"tile": PICTURE}),
    "an unknown control type": lambda b: b.generate(union, {"edges": PICTURE}),
    "a picture without a control type": lambda b: b.generate(union, PICTURE),
    "a span for one control type": lambda b: b.generate(
        union, {"canny": Condition(PICTURE, end=0.5)}
    ),
    "another file for a Control-LoRA": lambda b: b.file(ControlLora, {"a": ONE}),
    "half a Control-LoRA": lambda b: b.changed(
        ControlLora, lambda t: {k: v for k, v in t.items() if k != "time_embed.0.up"}
    ),
    "a Control-LoRA for another family": lambda b: b.changed(
        ControlLora,
        lambda t: {
            k: torch.ones(8, 2048) if k.endswith("attn2.to_k.down") else v for k, v in t.items()
        },
    ),
    "a Control-LoRA of SDXL on Stable Diffusion 1.5": lambda b: b.named("control-lora-sketch"),
    "a Control-LoRA without a file": lambda b: b.named("control-lora"),
    "a scale by place for one control type": lambda b: b.generate(
        union, {"canny": Condition(PICTURE, scale={"unet.mid": 0.5})}
    ),
    "two pictures of a control type for one": lambda b: b.generate(
        union, {"canny": Condition([PICTURE] * 2, scale=0.5)}, prompt="a cat"
    ),
    "an inpainting type without a mask": lambda b: b.generate(
        lambda: UnionControlNet(types=8, channels=(4, 8, 8), key="union"),
        {"inpaint": {"picture": PICTURE}},
    ),
    "a ControlNet at a misspelt place": lambda b: b.generate(
        control, Condition(PICTURE, scale={"unet.midd": 0.5})
    ),
    "a ControlNet where it does not act": lambda b: b.generate(
        control, Condition(PICTURE, scale={"unet.up": 0.5})
    ),
    "three scales for two pictures": lambda b: b.generate(
        control, Condition(PICTURE, scale=[0.1, 0.2, 0.3])
    ),
    "a schedule that goes back": lambda b: Condition(PICTURE, scale=[(0.5, 1.0), (0.2, 0.0)]),
    "a mask for a ControlNet": lambda b: b.generate(control, Condition(PICTURE, mask=PICTURE[:1])),
    "a ControlNet with the channel order gbr": lambda b: b.generate(
        lambda: ControlNet(channel_order="gbr", key="controlnet"), PICTURE
    ),
    "half a ControlNet": lambda b: b.changed(
        ControlNet, lambda t: {k: v for k, v in t.items() if not k.startswith("controlnet_mid")}
    ),
    "a ControlNet for nine channels": lambda b: b.changed(
        ControlNet, lambda t: t | {"conv_in.weight": torch.ones(8, 9, 3, 3)}
    ),
    "a Control-LoRA of two ranks": lambda b: b.changed(
        ControlLora, lambda t: t | {"time_embed.0.up": torch.ones(32, 5)}
    ),
    "a Control-LoRA that is not a number": lambda b: b.changed(
        ControlLora, lambda t: t | {"time_embed.0.up": t["time_embed.0.up"] / 0}
    ),
    "a preprocessor that takes no size": lambda b: b.generate(
        control, Condition(PICTURE, preprocess=round)
    ),
    "a photo for an adapter without a manifest": lambda b: b.generate(
        control, Condition(PICTURE, preprocess=True)
    ),
    "a size of one number for a preprocessor": lambda b: canny(PICTURE, size=64),
    "a file for an adapter that has its own": lambda b: b.named(
        "controlnet-canny", file="a.safetensors"
    ),
    "no background for IC-Light": lambda b: b.generate(
        lambda: BackgroundLight(key="ic-light-fbc"), {"foreground": PICTURE}
    ),
    "IC-Light on an inpainting model": lambda b: light().inject(inpainting()),
    "another file for IC-Light": lambda b: b.file(ForegroundLight, {"a": ONE}),
    "a file of IC-Light for a background": lambda b: b.file(
        ForegroundLight, BackgroundLight().inject(tiny_model()).published()
    ),
    "a whole UNet as an IC-Light": lambda b: b.file(
        ForegroundLight,
        {**light().inject(tiny_model()).published(), "conv_norm_out.weight": torch.ones(8)},
    ),
    "a strength for ELLA": lambda b: b.generate(
        lambda: ella(tiny_t5_tokenizer()), Condition(scale=0.5)
    ),
    "ELLA without a tokenizer": lambda b: b.generate(ella, Condition()),
    "another file for ELLA": lambda b: b.file(Ella, {"a": ONE}),
    "a prompt of one token for ELLA": lambda b: Ella(tokens=1, key="ella"),
    "a name that is not a colour": lambda b: b.generate(palette, ["red", "mauveish"]),
    "nine colours": lambda b: b.generate(palette, ["red"] * 9),
    "a colour without weight": lambda b: b.generate(palette, [("red", 0), ("blue", 1)]),
    "a level of 256": lambda b: b.generate(palette, [(256, 0, 0)]),
    "a number as a palette": lambda b: b.generate(palette, 7),
    "three palettes for two pictures": lambda b: b.generate(palette, [["red"], ["blue"], ["tan"]]),
    "another file for a palette": lambda b: b.file(PaletteAdapter, {"a": ONE}),
    "another file for an IP-Adapter": lambda b: b.file(IpAdapter, {"a": ONE}),
    "a text for an IP-Adapter": lambda b: b.generate(image_prompt, "photo.png"),
    "an IP-Adapter Plus as a plain one": lambda b: b.file(IpAdapter, {"image_proj.latents": ONE}),
    "a plain IP-Adapter as a FaceID": lambda b: b.file(FaceId, {"image_proj.proj.weight": ONE}),
    "a FaceID Plus of unknown version": lambda b: b.file(
        FaceIdPlus, {"image_proj.perceiver_resampler.proj_in.weight": ONE}
    ),
    "an unknown input of an IP-Adapter": lambda b: b.generate(
        image_prompt, {"picture": PICTURE, "mask": PICTURE[:1]}
    ),
    "masks without a picture": lambda b: b.generate(image_prompt, {"masks": PICTURE[:1]}),
    "three pictures for two of an IP-Adapter": lambda b: b.generate(image_prompt, [PICTURE] * 3),
    "two masks for one picture": lambda b: b.generate(
        image_prompt, {"picture": PICTURE, "masks": [PICTURE[:1]] * 2}
    ),
    "masks for averaged pictures": lambda b: b.generate(
        lambda: image_prompt(blend="average"),
        {"picture": [[PICTURE] * 2], "masks": [PICTURE[:1]] * 2},
    ),
    "an unknown blend": lambda b: image_prompt(blend="sum"),
    "two pictures beside one": lambda b: b.generate(image_prompt, [[PICTURE], [PICTURE] * 2]),
    "a misspelt place of InstantStyle": lambda b: b.generate(
        image_prompt, Condition(PICTURE, scale={"styles": 1.0})
    ),
    "a face of 256 numbers for FaceID": lambda b: b.generate(face, FACE[:256]),
    "a face for FaceID without insightface": lambda b: b.generate(face, PICTURE),
    "a LoRA of FaceID at infinity": lambda b: face(lora_scale=float("inf")),
    "a face without its picture for FaceID Plus": lambda b: b.generate(
        lambda: FaceIdPlus(rank=2, encoder=TINY_ENCODER, key="faceid-plus"), FACE
    ),
}


@pytest.fixture(autouse=True)
def _no_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the UNet fail: errors must be raised before it runs."""

    def forbidden(self: nn.Module, *_: Any, **__: Any) -> Any:
        raise AssertionError("the UNet ran")

    from refiners_core.models.unet import UNet

    monkeypatch.setattr(UNet, "run", forbidden, raising=False)


@pytest.mark.parametrize("use", USES)
def test_a_wrong_use_is_one_short_message(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    with pytest.raises(RefinersError) as error:
        USES[use](bench)
    message = " ".join(str(error.value).replace(str(tmp_path), "FOLDER").split())
    assert message == MESSAGES.get(use), message
    assert len(message) <= 320
    bench.model.eject_all()
    assert bench.model.adapters == ()


def test_every_message_has_a_use():
    assert sorted(MESSAGES) == sorted(USES)
