"""FaceID: its inner LoRA, its faces, the shortcut of Plus v2."""

from functools import partial
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from refiners_ipadapter.face_id import FaceId
from refiners_ipadapter.face_plus import FaceIdPlus
from refiners_ipadapter.face_reader import NORMED, RAW, FaceReader
from refiners_ipadapter.projection import SHORTCUT

from refiners_core import Condition, Source
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.face import aligned_crop
from refiners_core.models.image_prompt import numbered
from refiners_core.testing import tiny_model
from refiners_core.weights import read

from .sizes import FACE, KINDS, PICTURE, bits

EYES_NOSE_MOUTH = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
]
"""The template of ArcFace in a crop of 112 pixels."""
OTHER = torch.randn(512, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def model() -> LatentDiffusion:
    return tiny_model()


def faces(key: str, kind: str = "faceid", **options: Any) -> Any:
    """Returns a face prompt, with a LoRA that changes something."""
    return KINDS[kind](key=key, **options)


def trained(adapter: Any, seed: int = 1) -> Any:
    noise = torch.Generator().manual_seed(seed)
    for weight in adapter.parameters():
        weight.data = torch.randn(weight.shape, generator=noise) * 0.3
    return adapter


def layers(model: LatentDiffusion) -> dict[str, int]:
    return {name: id(layer) for name, layer in model.named_modules()}


def latents(model: LatentDiffusion, conditions: Any):
    arguments = {"steps": 2, "seed": 1, "output": "latents", "progress": False}
    return model.generate("a cat", conditions=conditions, **arguments)


def test_the_lora_is_worn_and_taken_off_with_its_adapter(model):
    bare, before = layers(model), bits(latents(model, {}))
    first, second = (trained(faces(key).inject(model), i) for i, key in enumerate("ab"))
    both = bits(latents(model, {first: FACE, second: OTHER}))
    alone = {}
    for adapter, other, face in ((first, second, FACE), (second, first, OTHER)):
        other.eject()
        alone[adapter] = bits(latents(model, {adapter: face}))
        other.inject(model)
    assert len({both, before, *alone.values()}) == 4
    first.eject()
    assert bits(latents(model, {second: OTHER})) == alone[second]
    second.eject()
    assert bits(latents(model, {})) == before
    assert layers(model) == bare


def test_the_lora_adds_its_change_once_to_every_projection(model):
    adapter = trained(faces("a").inject(model))
    seen: dict[str, Any] = {}
    for seat in model.slot("unet.linear").where(lambda seat: ".cross_attention." in seat.path):
        worn = seat.chain.at(seat.name)
        worn.register_forward_hook(partial(note, seen, seat.path))
    latents(model, {adapter: FACE})
    assert len(seen) == 4 * len(model.slot("unet.cross_attention"))
    for path, (inputs, output) in seen.items():
        (x,) = inputs
        numbers = {p.removesuffix(".attend"): n for p, (n, _) in numbered(model).items()}
        attention = path.split(".project.")[0].removesuffix(".to_out")
        change = adapter.parts.lora.layer(f"{numbers[attention]}.{path.rpartition('.')[2]}")
        base = model.slot("unet.linear").where(lambda seat, p=path: seat.path == p)[0].layer
        expected = base(x) + 1.0 * change.up(change.down(x))
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def note(seen: dict[str, Any], path: str, layer: Any, inputs: Any, output: Any) -> None:
    seen.setdefault(path, (inputs, output))


def test_scale_0_equals_absent_and_the_lora_has_a_strength(model):
    before = bits(latents(model, {}))
    adapter = trained(faces("a").inject(model))
    assert bits(latents(model, {adapter: Condition(FACE, scale=0)})) == before
    whole = latents(model, {adapter: FACE})
    adapter.lora_scale = 0.5
    half = latents(model, {adapter: FACE})
    adapter.lora_scale = 0
    none = latents(model, {adapter: FACE})
    assert len({bits(x) for x in (whole, half, none)}) == 3
    for change in adapter.parts.lora.layers(torch.nn.Linear):
        change.weight.data.zero_()
    adapter.lora_scale = 1.0
    torch.testing.assert_close(latents(model, {adapter: FACE}), none)
    adapter.lora_scale = float("nan")
    with pytest.raises(AdapterError, match="the lora_scale of a is a finite number, not nan"):
        latents(model, {adapter: FACE})


def test_faces_are_normalised_or_raw_as_the_file_was_trained():
    normed, raw = (FaceReader("id", pack, None) for pack in (NORMED, RAW))
    ((face,),) = normed.rows(FACE * 20)
    assert face.embedding.norm().item() == pytest.approx(1, abs=1e-5)
    ((face,),) = raw.rows(FACE * 20)
    assert torch.equal(face.embedding, FACE * 20)
    with pytest.warns(UserWarning, match=r"face\.embedding, not face\.normed_embedding"):
        raw.rows(FACE / FACE.norm())


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (FACE, (1, 1)),
        (FACE.tolist(), (1, 1)),
        ([FACE, OTHER], (2, 1)),
        ([FACE.tolist(), OTHER.tolist()], (2, 1)),
        ([[FACE, OTHER]], (1, 2)),
        ([[FACE.tolist(), OTHER.tolist()]], (1, 2)),
        ([[FACE, OTHER], [OTHER, FACE.numpy()]], (2, 2)),
        (torch.stack([FACE, OTHER]), (2, 1)),
    ],
)
def test_lists_of_lists_are_several_faces_for_each_picture(value: Any, shape: tuple[int, int]):
    rows = FaceReader("id", NORMED, None).rows(value)
    assert (len(rows), len(rows[0])) == shape


def test_faces_of_a_portrait_are_joined(model):
    adapter = trained(faces("a", "portrait").inject(model))
    seen = latents(model, {adapter: [[FACE, OTHER]]})
    torch.testing.assert_close(seen, latents(model, {adapter: [[OTHER, FACE]]}))
    assert not torch.allclose(seen, latents(model, {adapter: FACE}))


class FakeAnalysis:
    """Finds one face in every picture, as `FaceAnalysis` of insightface would."""

    def __init__(self) -> None:
        self.det_model = SimpleNamespace(input_size=(640, 640))

    def get(self, img: np.ndarray) -> list[SimpleNamespace]:
        points = np.array(EYES_NOSE_MOUTH, np.float32) / 112 * 18 + 1
        return [
            SimpleNamespace(bbox=np.array([0, 0, 9, 9]), kps=points, embedding=20 * FACE.numpy())
        ]


def test_a_picture_is_its_embedding_and_its_aligned_crop(model):
    detector = FakeAnalysis()
    adapter = trained(faces("a", "faceid-plusv2", detector=detector).inject(model))
    points = torch.tensor(EYES_NOSE_MOUTH) / 112 * 18 + 1
    crop = aligned_crop(PICTURE, points, 224)
    seen = latents(model, {adapter: PICTURE})
    given = latents(model, {adapter: {"face": FACE, "picture": crop.clamp(0, 1)}})
    torch.testing.assert_close(seen, given, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConditionError, match="given a face as numbers, but not its picture"):
        latents(model, {adapter: FACE})


def test_a_crop_puts_the_points_of_a_face_in_their_places():
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) * 0.4
    for size in (112, 224, 256):
        tight = size % 112 == 0
        unit, shift = (size / 112, 0.0) if tight else (size / 128, size / 16)
        goal = torch.tensor(EYES_NOSE_MOUTH) * unit + torch.tensor([shift, 0.0])
        points = goal @ turn.T + torch.tensor([80.0, 20.0])
        height, width = torch.meshgrid(torch.arange(200.0), torch.arange(160.0), indexing="ij")
        ramps = torch.stack([width / 160, height / 200, torch.zeros_like(width)])
        crop = aligned_crop(ramps, points, size)
        x, y = goal[2].round().int().tolist()
        source = torch.tensor([x, y]).float() @ turn.T + torch.tensor([80.0, 20.0])
        colour = crop[:2, y, x] * torch.tensor([160, 200])
        torch.testing.assert_close(colour, source, atol=1e-2, rtol=1e-3)


def test_the_shortcut_adds_the_tokens_of_the_embedding(model):
    plain, short = (
        trained(faces(kind[-2:], kind).inject(model), 4).eject()
        for kind in ("faceid-plus", "faceid-plusv2")
    )
    ids, patches = FACE[None] / FACE.norm(), torch.randn(1, 5, 8)
    with torch.no_grad():
        tokens = plain.parts.projection.inputs.face(ids)
        resampled = plain.projected((ids, patches))
        torch.testing.assert_close(short.projected((ids, patches)), tokens + resampled)
        short.shortcut_scale = 0.0
        torch.testing.assert_close(short.projected((ids, patches)), tokens)
    assert SHORTCUT not in plain.layout.names


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ip-adapter-faceid-plusv2_sd15.safetensors", {}, True),
        ("ip-adapter-faceid-plus_sd15.safetensors", {}, False),
        ("mine.safetensors", {"shortcut": True}, True),
        ("ip-adapter-faceid-plusv2_sd15.safetensors", {"shortcut": False}, False),
    ],
)
def test_version_2_is_known_by_name_or_option(name: str, options: Any, expected: bool):
    source = Source({"weights": Path(name)}, {"shortcut": "by name"})
    assert FaceIdPlus(**options).has_shortcut(source) is expected
    assert FaceIdPlus().has_shortcut(Source({"weights": Path(name)}, {"shortcut": True}))


def test_an_unknown_version_is_asked_for():
    source = Source({"weights": Path("mine.safetensors")}, {"shortcut": "by name"})
    with pytest.raises(AdapterError, match="may be a FaceID Plus or a FaceID Plus v2"):
        FaceIdPlus().has_shortcut(source)


def test_a_saved_face_prompt_is_read_again_with_its_lora(model, tmp_path: Path):
    adapter = trained(faces("a").inject(model))
    expected = latents(model, {adapter: FACE})
    adapter.save(tmp_path / "face.safetensors")
    adapter.eject()
    keys = read(tmp_path / "face.safetensors").keys()
    assert {"ip_adapter.0.to_q_lora.down.weight", "ip_adapter.1.to_k_ip.weight"} <= keys
    again = FaceId(weights=lambda _: Source({"weights": tmp_path / "face.safetensors"}), key="a")
    again.inject(model)
    torch.testing.assert_close(latents(model, {again: FACE}), expected)


def test_every_order_of_two_faces_and_a_picture_is_the_same(model):
    made = [trained(KINDS[kind](key=kind).inject(model).eject()) for kind in ("faceid", "linear")]
    outcomes = set()
    for order in permutations(made):
        for adapter in order:
            adapter.inject(model)
        outcomes.add(bits(latents(model, {made[0]: FACE, made[1]: PICTURE})))
        model.eject_all()
    assert len(outcomes) == 1
