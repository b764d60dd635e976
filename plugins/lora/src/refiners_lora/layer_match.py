"""Matches the layer names of a LoRA file with a model; refuses files for other bases."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from refiners_core import Model
from refiners_core.errors import WeightsError
from refiners_lora.language_match import match_language
from refiners_lora.language_name import is_language_model
from refiners_lora.layer_name import ALL_SLOTS, places_by_name
from refiners_lora.lora_file import LoraFile
from refiners_lora.match_check import Match, check_names, check_shapes, notify, sizes_of
from refiners_lora.peft_method import check_family
from refiners_lora.peft_target import some

BASES: Final = {768: "sd15", 1024: "sd2", 1280: "sdxl-refiner", 2048: "sdxl"}
"""Bases by the width of the text embeddings that their UNets read."""
MARKS: Final[Mapping[str, re.Pattern[str]]] = {
    "sdxl": re.compile(
        r"^(lora_te[12]_|text_encoder_2\.)|add_embedding|label_emb|transformer_blocks[._][1-9]"
    ),
    "sd15": re.compile(
        r"^lora_te_|(down_blocks[._]0|up_blocks[._][23])[._]attentions"
        r"|input_blocks[._](1|2|10|11)[._]1|output_blocks[._](9|10|11)[._]"
    ),
}
"""Patterns of layer names that only models of one base have."""


def match_layers(file: LoraFile, model: Model) -> list[Match]:
    """Returns the layers of a model that a file changes.

    Layers are matched by their published names, never by order or shape. Names that the model does
    not have are left out with a `Notice`, unless they show that the file is for another base.

    Raises:
        WeightsError: The file is for another base, or has no layer of the model.
    """
    if is_language_model(model):
        return match_language(file, model)
    check_family(file.path, [*file.modules])
    known = places_by_name(model, ALL_SLOTS)
    matches = [Match(known[name], module) for name, module in file.modules.items() if name in known]
    unknown = [name for name in file.modules if name not in known]
    _check_text_width(file, model)
    for base, marks in MARKS.items():
        names = [name for name in unknown if marks.search(name)]
        if names and base != model.base:
            raise _of_another_base(file, base, model, f"it names {names[0]!r}")
    parts = {match.place.part for match in matches}
    if not matches or ("unet" not in parts and any(map(_is_of_unet, unknown))):
        raise WeightsError(
            f"{file.path.name} holds {file.title} for {len(file.modules)} layers; this "
            f"{model.base} has no layer {some(unknown)}.",
            hint=f"Give a LoRA for {model.base}.",
        )
    check_names(file, matches)
    misfits = check_shapes(file, model, matches)
    if misfits:
        raise _of_other_sizes(file, model, matches, misfits)
    notify(file, model, unknown, ())
    return matches


def _check_text_width(file: LoraFile, model: Model) -> None:
    """Refuses a file whose cross-attentions read text embeddings of another width."""
    needed = model.facts.get("cross_attention_dim")
    if needed is None:
        return
    for name, module in file.modules.items():
        inputs = module.method.sizes(module.tensors)[0] if _READS_TEXT.search(name) else None
        if inputs is not None and inputs[0] != needed:
            base = BASES.get(inputs[0]) or _marked(file, model)
            reason = f"it reads texts of width {inputs[0]}, not {needed}"
            raise _of_another_base(file, base, model, reason)


def _of_other_sizes(
    file: LoraFile, model: Model, matches: Sequence[Match], misfits: Sequence[tuple[Match, str]]
) -> WeightsError:
    (place, module), reason = misfits[0]
    first_given = (module.method.sizes(module.tensors)[0] or [0])[0]
    needed = sizes_of(place, module)
    reads_more = len(misfits) == 1 and module.name.endswith(_FIRST) and first_given > needed[1]
    base = "an inpainting model" if reads_more else _marked(file, model)
    text = f"{len(misfits)} of {len(matches)} layers have other sizes. {module.name!r} {reason}"
    return _of_another_base(file, base, model, text)


def _marked(file: LoraFile, model: Model) -> str:
    """Returns the base that the names of layers point to."""
    for base, marks in MARKS.items():
        if base != model.base and any(map(marks.search, file.modules)):
            return base
    return "a model of other sizes"


def _of_another_base(file: LoraFile, base: str, model: Model, reason: str) -> WeightsError:
    return WeightsError(
        f"{file.path.name} is {file.title} for {base}; this model is {model.base}: {reason}.",
        hint=f"Give a LoRA for {model.base}, or load the model that this LoRA is for.",
    )


def _is_of_unet(name: str) -> bool:
    return name.startswith(("lora_unet_", "unet.", "model.diffusion_model.", "diffusion_model."))


_FIRST: Final = ("conv_in", "input_blocks_0_0", "input_blocks.0.0")
_READS_TEXT: Final = re.compile(r"attn2[._](processor\.)?to_[kv](_lora)?$")
