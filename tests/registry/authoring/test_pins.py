"""First-party manifests have exactly the pins that public sources state."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from refiners.catalog import SHIPPED, Listed
from refiners.catalog.entry import releases_of
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import MANIFESTS as KINDS
from refiners.manifest.schema import UNKNOWN, AdapterManifest, WeightsFile

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
MANIFESTS = sorted(ROOT.glob("plugins/*/src/*/adapter.toml"))
PREPROCESSORS = sorted(ROOT.glob("plugins/*/src/*/preprocessor.toml"))
PINS = {
    (file["repo"], file["path"]): file
    for file in tomllib.loads((DATA / "pins.toml").read_text())["file"]
}
SD15 = "lllyasviel/control_v11"
CONTROLNETS = {
    "canny": "p_sd15_canny",
    "depth": "f1p_sd15_depth",
    "openpose": "p_sd15_openpose",
    "lineart": "p_sd15_lineart",
    "lineart-anime": "p_sd15s2_lineart_anime",
    "softedge": "p_sd15_softedge",
    "scribble": "p_sd15_scribble",
    "seg": "p_sd15_seg",
    "normalbae": "p_sd15_normalbae",
    "mlsd": "p_sd15_mlsd",
    "inpaint": "p_sd15_inpaint",
    "ip2p": "e_sd15_ip2p",
    "tile": "f1e_sd15_tile",
    "shuffle": "e_sd15_shuffle",
}
OF_SDXL = [
    *((name, f"diffusers/controlnet-{name}-sdxl-1.0") for name in ("canny", "depth")),
    ("depth-zoe", "diffusers/controlnet-zoe-depth-sdxl-1.0"),
    *(
        (f"{name}-xinsir", f"xinsir/controlnet-{name}-sdxl-1.0")
        for name in ("canny", "depth", "openpose", "scribble", "tile")
    ),
    ("openpose-thibaud", "thibaud/controlnet-openpose-sdxl-1.0"),
    ("qrcode-monster", "monster-labs/control_v1p_sdxl_qrcode_monster"),
    *(
        (f"{name}-{size}", f"diffusers/controlnet-{name}-sdxl-1.0-{size}")
        for name in ("canny", "depth")
        for size in ("small", "mid")
    ),
    ("softedge-dexined", "SargeZT/controlnet-sd-xl-1.0-softedge-dexined"),
    ("depth-zoe-16bit", "SargeZT/controlnet-sd-xl-1.0-depth-16bit-zoe"),
    ("tile-ttplanet", "TTPlanet/TTPLanet_SDXL_Controlnet_Tile_Realistic"),
    ("inpaint-dreamer", "destitech/controlnet-inpaint-dreamer-sdxl"),
    ("union", "xinsir/controlnet-union-sdxl-1.0"),
    ("union-promax", "xinsir/controlnet-union-sdxl-1.0"),
]
IP_ADAPTERS = {
    "ip-adapter": ("sd15", "vit-h"),
    "ip-adapter-plus": ("plus_sd15", "vit-h"),
    "ip-adapter-plus-face": ("plus-face_sd15", "vit-h"),
    "ip-adapter-full-face": ("full-face_sd15", "vit-h"),
    "ip-adapter-light": ("sd15_light", "vit-h"),
    "ip-adapter-light-v11": ("sd15_light_v11", "vit-h"),
    "ip-adapter-vit-g": ("sd15_vit-G", "vit-g"),
}

BASES = ("sd15", "sdxl")
PICKLES = {
    ("controlnet-sam", "sd15"),
    ("controlnet-tile", "sd15"),
    ("instantid", "ip-adapter"),
    ("ip-adapter-light-v11", "sd15"),
    *((f"ip-adapter-faceid{kind}", base) for kind in ("", "-plusv2") for base in BASES),
    *((f"ip-adapter-faceid-{kind}", "sd15") for kind in ("plus", "portrait-v11")),
    *((f"ip-adapter-faceid-portrait{kind}", "sdxl") for kind in ("", "-unnorm")),
    ("t2i-depth", "sd15"),
}
"""Files that are not published as safetensors."""


def published() -> Iterator[tuple[str, str, WeightsFile]]:
    """Yields every file on the Hub that a first-party manifest names."""
    for path in (*MANIFESTS, *PREPROCESSORS):
        for name, spec in load_manifest(path, KINDS[path.stem]).tables.items():
            for role, file in spec.weights.items():
                if file.scheme == "hf":
                    yield name, role, file


def specs() -> dict[str, object]:
    both = [load_manifest(path, AdapterManifest).adapter for path in MANIFESTS]
    return {name: spec for adapters in both for name, spec in adapters.items()}


@pytest.mark.parametrize(
    ("name", "role", "file"), [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in published()]
)
def test_a_pin_equals_the_public_one(name: str, role: str, file: WeightsFile) -> None:
    stated = PINS.get((file.address, file.file or ""), {})
    assert file.revision == stated.get("revision", UNKNOWN)
    assert file.sha256 == stated.get("sha256", UNKNOWN)
    assert file.size == stated.get("size")
    usual = "openrail" if file.address.startswith(SD15) else ""
    assert file.license == stated.get("license", usual)


def test_every_controlnet_of_sd15_exists() -> None:
    adapters = specs()
    for name, stem in CONTROLNETS.items():
        spec = adapters[f"controlnet-{name}"]
        assert spec.weights["sd15"].source == f"hf:{SD15}{stem}"
        assert spec.variant[0].base == "sd15"
        assert spec.input["picture"].summary


def test_every_plain_controlnet_of_sdxl_exists() -> None:
    adapters = specs()
    adapters_of_sdxl = {
        (spec.weights[variant.files["weights"]].address, name)
        for name, spec in adapters.items()
        for variant in spec.variant
        if name.startswith("controlnet-") and variant.base == "sdxl"
    }
    assert adapters_of_sdxl == {(repository, f"controlnet-{name}") for name, repository in OF_SDXL}
    for name in ("canny", "depth"):
        assert adapters[f"controlnet-{name}"].aliases == (f"controlnet-{name}-sdxl",)


def test_every_plain_ip_adapter_of_sd15_exists() -> None:
    adapters = specs()
    for name, (stem, encoder) in IP_ADAPTERS.items():
        spec = adapters[name]
        assert Path(spec.weights["sd15"].file).stem == f"ip-adapter{dashed(stem)}"
        assert spec.variant[0].files == {"weights": "sd15", "encoder": encoder}


def dashed(stem: str) -> str:
    """Returns the end of a file's name: `-plus_sd15`, but `_sd15`."""
    return f"-{stem}" if stem.startswith(("plus", "full")) else f"_{stem}"


def test_every_face_id_has_its_file_and_says_that_it_is_not_for_commerce() -> None:
    files = {
        (Path(spec.weights[variant.files["weights"]].file).stem, variant.base)
        for name, spec in specs().items()
        for variant in spec.variant
        if name.startswith("ip-adapter-faceid") and variant.base != "playground"
    }
    kinds = ("faceid_{}", "faceid-plusv2_{}")
    both = {
        (f"ip-adapter-{kind.format(base)}", base) for kind in kinds for base in ("sd15", "sdxl")
    }
    assert files == both | {
        ("ip-adapter-faceid-plus_sd15", "sd15"),
        ("ip-adapter-faceid-portrait-v11_sd15", "sd15"),
        ("ip-adapter-faceid-portrait_sdxl", "sdxl"),
        ("ip-adapter-faceid-portrait_sdxl_unnorm", "sdxl"),
    }
    for name, spec in specs().items():
        if name.startswith("ip-adapter-faceid"):
            assert spec.external["buffalo-l"].license == "non-commercial research"
            for file in spec.weights.values():
                if file.source.startswith("pkg:"):
                    continue
                is_face = file.address == "h94/IP-Adapter-FaceID"
                assert file.sha256 == UNKNOWN or ("non-commercial" in file.license) == is_face


def test_every_plain_ip_adapter_of_sdxl_exists() -> None:
    adapters = specs()
    for name, stem, encoder in (
        ("ip-adapter", "sdxl", "vit-g"),
        ("ip-adapter-sdxl-vit-h", "sdxl_vit-h", "vit-h"),
        ("ip-adapter-plus", "plus_sdxl_vit-h", "vit-h"),
        ("ip-adapter-plus-face", "plus-face_sdxl_vit-h", "vit-h"),
    ):
        spec = adapters[name]
        assert spec.weights["sdxl"].file == f"sdxl_models/ip-adapter{dashed(stem)}.safetensors"
        (variant,) = (item for item in spec.variant if item.base == "sdxl")
        assert variant.files == {"weights": "sdxl", "encoder": encoder}
    assert adapters["ip-adapter"].aliases == ("ip-adapter-sdxl",)


def test_the_list_of_gaps_is_exact() -> None:
    listed = tomllib.loads((DATA / "gaps.toml").read_text())["gap"]
    gaps = [
        {"adapter": name, "file": role, "unknown": unknown}
        for name, role, file in published()
        if (unknown := [key for key in ("revision", "sha256") if getattr(file, key) == UNKNOWN])
    ]
    assert sorted(gaps, key=str) == sorted(listed, key=str)


def test_the_shipped_catalog_equals_the_manifests() -> None:
    """To update: `refiners catalog build WHEELS --out registry/refiners/catalog`."""
    for path in (*MANIFESTS, *PREPROCESSORS, *ROOT.glob("plugins/*/src/*/model.toml")):
        project = tomllib.loads((path.parents[2] / "pyproject.toml").read_text())["project"]
        kind = path.stem
        for name, spec in load_manifest(path, KINDS[kind]).tables.items():
            entry = Listed(name=name, kind=kind, distribution=project["name"], summary="")
            known = releases_of(SHIPPED, entry)
            (release,) = [entry for entry in known if entry.version == project["version"]]
            assert release.spec == msgspec.json.decode(msgspec.json.encode(spec)), name


def test_a_pickle_is_pinned() -> None:
    pickles = {(name, role): file for name, role, file in published() if file.format == "pickle"}
    assert pickles.keys() == PICKLES
    assert all(file.sha256 != UNKNOWN for file in pickles.values())
