"""Faces are embeddings or pictures; other values are refused before a network runs."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refiners_instantid.adapter import InstantId
from refiners_instantid.face_pack import ANTELOPE
from refiners_instantid.keypoint import Pen, draw, keypoint_pixels
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.face import SIDES, default_detector, face_embeddings, largest_face
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.testing import tiny_model

SIZES = ResamplerConfig(width=64, heads=1, depth=1, inner=16, tokens=3)
POINTS = [[9, 10], [22, 10], [16, 16], [11, 22], [21, 22]]
FACE = torch.randn(512, generator=torch.Generator().manual_seed(1))
PICTURE = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(2))


def detected(box: list[float], seed: int) -> SimpleNamespace:
    source = np.random.default_rng(seed)
    return SimpleNamespace(
        bbox=np.array(box, np.float32),
        kps=np.array(POINTS, np.float32) + seed,
        embedding=source.normal(size=512).astype(np.float32),
    )


class FakeAnalysis:
    """Behaves like a prepared `FaceAnalysis` of insightface."""

    def __init__(self, *faces: SimpleNamespace, seen_from: int = 640) -> None:
        self.det_model = SimpleNamespace(input_size=(123, 123))
        self.faces, self.seen_from = faces, seen_from
        self.searched: list[Any] = []

    def get(self, img: np.ndarray) -> list[SimpleNamespace]:
        self.searched.append((self.det_model.input_size, img))
        return list(self.faces) if self.det_model.input_size[0] <= self.seen_from else []


def make(**options: Any) -> InstantId:
    return InstantId(resampler=SIZES, channels=(4, 8, 8), name="instantid", key="id", **options)


@pytest.mark.parametrize(
    "face",
    [
        FACE,
        FACE[None],
        FACE.tolist(),
        [FACE.tolist()],
        FACE.numpy(),
        FACE.numpy()[None],
        [FACE.numpy()],
        (FACE,),
        FACE.double(),
        FACE.bfloat16(),
    ],
)
def test_a_face_is_512_raw_numbers_in_any_form(face: Any):
    rows = face_embeddings(face, "id", ANTELOPE)
    assert rows is not None
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, FACE[None], atol=0.02, rtol=0)
    assert rows.norm() > 15  # not normalised


def test_rows_of_numbers_are_faces_for_several_pictures():
    for faces in (torch.stack([FACE, -FACE]), [FACE, (-FACE).numpy()], [FACE.tolist()] * 2):
        rows = face_embeddings(faces, "id", ANTELOPE)
        assert rows is not None
        assert rows.shape == (2, 512)
        assert torch.equal(rows[0], FACE)


def test_a_normalised_face_is_warned_about():
    with pytest.warns(UserWarning, match=r"face\.embedding, not face\.normed_embedding"):
        face_embeddings(FACE / FACE.norm(), "id", ANTELOPE)


def test_the_largest_face_is_chosen_in_any_order():
    big, low = detected([10, 0, 60, 30], 1), detected([0, 80, 20, 100], 2)
    for order in ((big, low), (low, big)):
        face = largest_face(PICTURE, FakeAnalysis(*order), "id", ANTELOPE)
        assert torch.equal(face.embedding, torch.from_numpy(big.embedding))
        assert torch.equal(face.keypoints, torch.from_numpy(big.kps))
    twins = detected([0, 0, 5, 10], 3), detected([5, 5, 15, 10], 4)
    face = largest_face(PICTURE, FakeAnalysis(*twins), "id", ANTELOPE)
    assert torch.equal(face.embedding, torch.from_numpy(twins[0].embedding))


@pytest.mark.parametrize(("seen_from", "sides"), [(640, [640]), (400, [640, 576, 512, 448, 384])])
def test_smaller_sizes_are_tried_until_a_face_is_found(seen_from: int, sides: list[int]):
    analysis = FakeAnalysis(detected([0, 0, 9, 9], 1), seen_from=seen_from)
    largest_face(PICTURE, analysis, "id", ANTELOPE)
    assert [size for size, _ in analysis.searched] == [(side, side) for side in sides]
    assert analysis.det_model.input_size == (123, 123)
    assert analysis.searched[0][1].dtype == np.uint8
    blue = torch.from_numpy(analysis.searched[0][1][..., 0].copy())
    assert torch.equal(blue, (PICTURE[2] * 255).round().byte())


def test_no_face_is_one_error_after_all_sizes():
    analysis = FakeAnalysis(seen_from=640)
    with pytest.raises(ConditionError, match="no face was found in the picture for id"):
        largest_face(PICTURE, analysis, "id", ANTELOPE)
    assert [size[0] for size, _ in analysis.searched] == [*SIDES] == [640, 576, 512, 448, 384, 320]


def encoded(adapter: InstantId, value: Any, count: int = 1) -> dict[str, Tensor]:
    """Returns the context values of `cond` in a generation of 32 x 32 pixels."""
    request = GenerationRequest(
        model=None,
        count=count,
        branches=("uncond", "cond"),
        height=32,
        width=32,
        latent_height=8,
        latent_width=8,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        values = adapter.encode(value, request)
    return {key: value["cond"] for key, value in values.items()}


@pytest.mark.parametrize("picture", [PICTURE, [PICTURE], PICTURE[None]])
def test_a_picture_of_a_face_is_its_embedding_and_its_fitted_keypoints(picture: Any):
    face = detected([0, 0, 9, 9], 1)
    adapter = make(detector=FakeAnalysis(face)).inject(tiny_model())
    torch.nn.init.ones_(adapter.control.encoder.conv_out.weight)  # it begins at zero
    values = encoded(adapter, {"face": picture})
    # 64 x 40 pixels become 32 x 20 in the middle of 32 x 32
    points = torch.from_numpy(face.kps) * 0.5 + torch.tensor([0, 6])
    same = encoded(adapter, {"face": face.embedding, "keypoints": draw(points, (32, 32))})
    assert values.keys() == same.keys()
    assert all(torch.equal(values[key], same[key]) for key in values)
    elsewhere = encoded(adapter, {"face": picture, "keypoints": POINTS})
    assert torch.equal(elsewhere["id.tokens"], values["id.tokens"])
    pixels = draw(torch.tensor(POINTS).float(), (32, 32))[None]
    with torch.no_grad():
        assert torch.equal(elsewhere["id.features"], adapter.control.encoder(pixels))


def test_pictures_of_several_sizes_are_faces_for_several_pictures():
    adapter = make(detector=FakeAnalysis(detected([0, 0, 9, 9], 1))).inject(tiny_model())
    values = encoded(adapter, {"face": [Image.new("RGB", (20, 30)), PICTURE]}, count=2)
    assert len(values["id.tokens"]) == len(values["id.features"]) == 2


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in WHOLE.items() if key != name}


WHOLE = {"face": FACE, "keypoints": POINTS}
WRONG = {
    "no face": (without("face"), "id needs face; it is given keypoints."),
    "no mapping": (FACE, "id needs face; it is given Tensor."),
    "another name": (
        {**WHOLE, "keypoint": POINTS},
        "id takes face and keypoints, not keypoint.",
    ),
    "no keypoints": (without("keypoints"), "id is given a face as numbers, but no keypoints."),
    "256 numbers": ({**WHOLE, "face": FACE[:256]}, "a face for id is 512 numbers, not 256."),
    "256 in rows": (
        {**WHOLE, "face": [FACE[:256].tolist()]},
        "a face for id is 512 numbers, not 256.",
    ),
    "nothing as face": ({**WHOLE, "face": None}, "id cannot read a face from NoneType."),
    "a name as face": ({**WHOLE, "face": "me.png"}, "id cannot read a face from str."),
    "an empty list": (
        {**WHOLE, "face": []},
        "id cannot read a face from numbers of shape [0].",
    ),
    "NaN": ({**WHOLE, "face": FACE * float("nan")}, "the face for id has numbers that are not"),
    "infinity": ({**WHOLE, "face": FACE / 0}, "the face for id has numbers that are not finite."),
    "four keypoints": (
        {**WHOLE, "keypoints": POINTS[:4]},
        "the keypoints for id are five points (x, y), not the shape [4, 2].",
    ),
    "a word as keypoints": (
        {**WHOLE, "keypoints": "smile"},
        "the keypoints for id are five points (x, y), not a str.",
    ),
    "ragged keypoints": (
        {**WHOLE, "keypoints": [[1, 2], [3]]},
        "the keypoints for id are five points (x, y), not a list.",
    ),
    "keypoints of NaN": (
        {**WHOLE, "keypoints": [[float("nan"), 1], *POINTS[1:]]},
        "a keypoint for id is not a finite number.",
    ),
    "outside": (
        {**WHOLE, "keypoints": [[32, 1], *POINTS[1:]]},
        "a keypoint for id lies at (32, 1), outside the picture of 32 x 32 pixels.",
    ),
    "below zero": (
        {**WHOLE, "keypoints": [[3, -0.5], *POINTS[1:]]},
        "a keypoint for id lies at (3, -0.5), outside the picture of 32 x 32 pixels.",
    ),
    "a face too many": (
        {**WHOLE, "face": torch.stack([FACE] * 3)},
        "id is given 3 faces for 2 pictures.",
    ),
    "keypoints too many": (
        {**WHOLE, "keypoints": [POINTS] * 3},
        "id is given 3 sets of keypoints for 2 pictures.",
    ),
    "pictures too many": ({"face": [PICTURE] * 3}, "id is given 3 faces for 2 pictures."),
    "a picture without insightface": (
        {"face": PICTURE},
        "id cannot detect a face in a picture: insightface is not installed.",
    ),
}


@pytest.fixture(scope="module")
def idle() -> tuple[LatentDiffusion, InstantId]:
    """A model and the adapter that it wears; none of their networks may run."""
    model = tiny_model()
    adapter = make().inject(model)
    for network in (model.unet, model.text_encoder, adapter.parts.projection, adapter.control[0]):
        network.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    return model, adapter


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_use_is_one_short_error_before_any_network_runs(
    wrong: str, idle: tuple[LatentDiffusion, InstantId], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    value, message = WRONG[wrong]
    model, adapter = idle
    with pytest.raises(ConditionError) as error:
        model.generate("", conditions={adapter: value}, count=2, steps=1, progress=False)
    assert error.value.message.startswith(message)
    assert len(error.value.message) < 100
    assert error.value.hint


def test_without_insightface_the_error_has_a_hint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(ConditionError) as error:
        default_detector("id", ANTELOPE)
    assert 'pip install "refiners-instantid[insightface]"' in error.value.hint
    assert "512 numbers" in error.value.hint


def test_insightface_is_prepared_once_from_installed_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    made: list[dict[str, Any]] = []

    class FaceAnalysis(FakeAnalysis):
        def __init__(self, **options: Any) -> None:
            super().__init__(detected([0, 0, 9, 9], 1))
            made.append(options)

        def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
            made[-1]["prepared"] = (ctx_id, det_size)

    package = ModuleType("insightface.app")
    package.FaceAnalysis = FaceAnalysis
    monkeypatch.setitem(sys.modules, "insightface", ModuleType("insightface"))
    monkeypatch.setitem(sys.modules, "insightface.app", package)
    moved = replace(ANTELOPE, place=tmp_path / "models")
    monkeypatch.setattr(InstantId, "pack", moved)
    adapter = make().inject(tiny_model())
    with pytest.raises(ConditionError, match=r"antelopev2 are not in .*scrfd_10g_bnkps\.onnx"):
        encoded(adapter, {"face": PICTURE})
    assert made == []
    (tmp_path / "models/antelopev2").mkdir(parents=True)
    for name in ANTELOPE.files:
        (tmp_path / "models/antelopev2" / name).touch()
    for _ in range(2):
        assert "id.tokens" in encoded(adapter, {"face": PICTURE})
    (options,) = made
    assert (options["name"], options["root"]) == ("antelopev2", str(tmp_path))
    assert options["prepared"] == (-1, (640, 640))


def test_a_variant_may_name_other_face_models():
    pack = ANTELOPE.following({"face": {"name": "my reader", "width": 3}}, "id")
    assert face_embeddings([1.0, 2, 3], "id", pack).tolist() == [[1, 2, 3]]
    with pytest.raises(ConditionError, match="a face for id is 3 numbers, not 512"):
        face_embeddings(FACE, "id", pack)
    with pytest.raises(ConditionError, match="it reads faces of my reader"):
        default_detector("id", pack)
    assert ANTELOPE.following({}, "id") is ANTELOPE
    for stated in ("my reader", {"name": "my reader"}, {"name": "my reader", "width": 0}):
        with pytest.raises(AdapterError, match=r"not the name of the face models and the width"):
            ANTELOPE.following({"face": stated}, "id")


def test_a_detector_without_embeddings_is_refused():
    blind = detected([0, 0, 9, 9], 1)
    blind.embedding = None
    with pytest.raises(ConditionError, match="without embedding or keypoints"):
        largest_face(PICTURE, FakeAnalysis(blind), "id", ANTELOPE)


def test_a_variant_may_draw_smaller_points():
    points = torch.tensor(POINTS)
    small = keypoint_pixels(points, (32, 32), "id", Pen(radius=1, half_width=1))
    large = keypoint_pixels(points, (32, 32), "id")
    assert 0 < (small.amax(1) > 0).sum() < 0.5 * (large.amax(1) > 0).sum()
    assert small[0, :, 16, 16].tolist() == [0, 0, 1]
    files = {"weights": Path("a"), "control": Path("b")}
    source = Source(files, settings={"pen": {"radius": 2, "half-width": 1}})
    assert source.sizes("pen", Pen) == Pen(2, 1)
