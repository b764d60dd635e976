"""A load by name resolves, checks, fetches and verifies, and only then imports the plugin."""

import hashlib
import pickle
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import refiners
import torch
from refiners.hub.tensor_header import read_header
from refiners.installed.hook_modules import load_hooks
from refiners.load import outline
from refiners.testing import Fault, LoopbackHub, safetensors_of

from refiners_core import Chain, Identity, Model, hookspecs
from refiners_core.models.diffusion import LatentDiffusion

from ..conftest import EDGES, EDGES_TOML, TOY_MODEL, TOY_MODEL_TOML, Site

DATA = safetensors_of({"weight": [1.0, 2.0]})
SHA = hashlib.sha256(DATA).hexdigest()


def with_weights(manifest: str, **entry: object) -> str:
    """Adds one file to the manifest of the edges adapter or the toy model."""
    lines = "\n".join(f'{key} = "{value}"' for key, value in entry.items())
    if "[adapter" in manifest:
        table = "adapter.edges"
        manifest = manifest.replace('base = "toy"', 'base = "toy"\nweights = "main"')
    else:
        table = "model.toy"
    return f"{manifest}\n[{table}.weights.main]\n{lines}\n"


def test_a_model_and_an_adapter_are_loaded_by_name(site: Site) -> None:
    site.add_toy()
    site.add_edges()
    model = refiners.load_model("toy")
    edges = refiners.load_adapter("edges", model, strength=0.5)
    assert model.adapters == (edges,)
    assert (edges.name, edges.strength) == ("edges", 0.5)
    assert edges.built_from.settings == {"heads": 3}
    edges.eject()
    assert model.adapters == ()


def test_an_adapter_without_a_model_binds_at_its_first_inject(site: Site) -> None:
    site.add_toy()
    site.add_edges()
    edges = refiners.load_adapter("refiners-edges:edges")
    assert not hasattr(edges, "built_from")
    with edges.on(refiners.load_model("refiners-toy:toy")) as worn:
        assert worn.built_from.variant == "toy"


def test_a_model_of_another_kind_is_refused(site: Site) -> None:
    site.add_toy()
    assert refiners.load_model("toy", kind=Model).base == "toy"
    with pytest.raises(refiners.UnsupportedError, match="toy is a Model, not a LatentDiffusion"):
        refiners.load_model("toy", kind=LatentDiffusion)


def test_device_and_dtype_reach_the_factory(site: Site) -> None:
    site.add_toy()
    model = refiners.load_model("toy", device="meta", dtype="float16")
    weight = next(model.parameters())
    assert (weight.device.type, weight.dtype) == ("meta", torch.float16)


@pytest.mark.parametrize(
    "options",
    [{"device": "no-such-device"}, {"dtype": "float17"}, {"dtype": "nn"}, {"dtype": torch.int8}],
)
def test_an_invalid_device_or_dtype_is_refused(site: Site, options: dict[str, object]) -> None:
    site.add_toy()
    with pytest.raises(refiners.OptionError):
        refiners.load_model("toy", **options)
    assert "refiners_toy.model" not in sys.modules


def test_weights_are_fetched_from_the_hub_once(site: Site, hub: LoopbackHub) -> None:
    repo = hub.publish("org/edges", {"model.safetensors": DATA})
    pins = {"source": "hf:org/edges", "file": "model.safetensors", "revision": repo.commit}
    site.add_edges(with_weights(EDGES_TOML, **pins, sha256=SHA))
    site.add_toy()
    edges = refiners.load_adapter("edges", refiners.load_model("toy"))
    assert edges.built_from.files["weights"].read_bytes() == DATA
    hub.requests.clear()
    again = refiners.load_adapter("edges", refiners.load_model("toy"), offline=True)
    assert again.built_from.files == edges.built_from.files
    assert hub.requests == []


def test_wrong_bytes_leave_the_model_bare(site: Site, hub: LoopbackHub) -> None:
    repo = hub.publish("org/edges", {"model.safetensors": DATA})
    hub.fail("model.safetensors", Fault.WRONG_BYTES, method="GET")
    pins = {"source": "hf:org/edges", "file": "model.safetensors", "revision": repo.commit}
    site.add_edges(with_weights(EDGES_TOML, **pins, sha256=SHA))
    site.add_toy()
    model = refiners.load_model("toy")
    with pytest.raises(refiners.IntegrityError):
        refiners.load_adapter("edges", model)
    assert model.adapters == ()


def test_weights_come_from_a_package_without_importing_it(site: Site, hub: LoopbackHub) -> None:
    site.add_toy()
    site.add("data", files={"__init__.py": "raise RuntimeError", "w/a.safetensors": DATA})
    site.add_edges(with_weights(EDGES_TOML, source="pkg:data/w/a.safetensors", sha256=SHA))
    edges = refiners.load_adapter("edges", refiners.load_model("toy"), offline=True)
    assert edges.built_from.files["weights"] == site.folder / "data" / "w" / "a.safetensors"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("content", "words"), [(DATA[::-1], "does not have the sha256"), (None, "has no file")]
)
def test_a_package_with_other_weights_is_refused(
    site: Site, hub: LoopbackHub, content: bytes | None, words: str
) -> None:
    site.add("data", files={} if content is None else {"a.safetensors": content})
    manifest = with_weights(TOY_MODEL_TOML, source="pkg:data/a.safetensors", sha256=SHA)
    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": manifest})
    with pytest.raises(refiners.IntegrityError, match=words) as caught:
        refiners.load_model("toy")
    assert "pip install --force-reinstall data" in caught.value.hint


def test_a_file_in_another_format_is_refused(site: Site, hub: LoopbackHub) -> None:
    junk = b"junk" * 9
    digest = hashlib.sha256(junk).hexdigest()
    site.add("data", files={"a.safetensors": junk, "b.json": junk})
    for file, pins in (("a.safetensors", {}), ("b.json", {"format": "json"})):
        manifest = with_weights(TOY_MODEL_TOML, source=f"pkg:data/{file}", sha256=digest, **pins)
        dist = f"refiners-toy-{pins.get('format', 'bad')}"
        site.add(dist, files={"model.py": TOY_MODEL, "model.toml": manifest})
    with pytest.raises(refiners.IntegrityError, match="not a readable safetensors"):
        refiners.load_model("refiners-toy-bad:toy")


def test_a_pinned_pickle_is_converted_to_safetensors_once(
    site: Site, hub: LoopbackHub, tmp_path: Path
) -> None:
    torch.save({"deep": {"weight": torch.ones(2)}}, tmp_path / "a.bin")
    repo = hub.publish("org/old", {"a.bin": (tmp_path / "a.bin").read_bytes()})
    pins = {"source": "hf:org/old", "file": "a.bin", "revision": repo.commit, "format": "pickle"}
    manifest = with_weights(TOY_MODEL_TOML, **pins, sha256=repo.sha256("a.bin"))
    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": manifest})
    path = refiners.load_model("toy").source.files["main"]
    assert path.suffix == ".safetensors"
    assert list(read_header(path)) == ["deep.weight"]
    hub.requests.clear()
    with patch("refiners_core.weights.pickle_file.rewrite_pickle", side_effect=AssertionError):
        assert refiners.load_model("toy", offline=True).source.files["main"] == path
    assert hub.requests == []
    path.write_bytes(b"damaged")
    assert refiners.load_model("toy").source.files["main"] == path
    assert list(read_header(path)) == ["deep.weight"]


def test_a_pickle_without_a_pinned_hash_is_not_fetched(site: Site, hub: LoopbackHub) -> None:
    hub.publish("org/old", {"a.bin": pickle.dumps({})})
    manifest = with_weights(TOY_MODEL_TOML, source="hf:org/old", file="a.bin", format="pickle")
    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": manifest})
    with pytest.raises(refiners.PolicyError, match="without a pinned hash"):
        refiners.load_model("toy")
    assert hub.requests == []


def test_another_scheme_is_fetched_by_a_hook_and_verified(
    site: Site, hub: LoopbackHub, tmp_path: Path
) -> None:
    manifest = with_weights(TOY_MODEL_TOML, source="drive:shelf/a", sha256=SHA)
    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": manifest})
    with pytest.raises(refiners.UnsupportedError, match="no installed hook module fetches drive:"):
        refiners.load_model("toy")

    class Drive:
        @hookspecs.hookimpl
        def fetch_weights(self, event: hookspecs.WeightRequest) -> Path | None:
            return tmp_path / "a" if event.source == "drive:shelf/a" else None

    drive = Drive()
    hookspecs.manager().register(drive)
    try:
        (tmp_path / "a").write_bytes(DATA)
        assert refiners.load_model("toy").source.files == {"main": tmp_path / "a"}
        (tmp_path / "a").write_bytes(DATA + b"!")
        with pytest.raises(refiners.IntegrityError, match="does not have the sha256"):
            refiners.load_model("toy")
    finally:
        hookspecs.manager().unregister(drive)


def test_a_refusal_imports_and_fetches_nothing(site: Site, hub: LoopbackHub) -> None:
    site.add_toy()
    site.add_edges(EDGES_TOML.replace("width = 2", "width = 3"))
    with pytest.raises(refiners.IncompatibleError, match="needs width = 3, this toy model has 2"):
        refiners.load_adapter("edges", refiners.load_model("toy"))
    assert "refiners_edges.adapter" not in sys.modules
    assert hub.requests == []


def test_a_plugin_for_another_core_is_refused(site: Site) -> None:
    site.add_edges(EDGES_TOML.replace(">=1.0,<2", ">=7"))
    with pytest.raises(refiners.IncompatibleError, match="needs core API >=7"):
        refiners.load_adapter("edges")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("def (", "SyntaxError"),
        ("", "AttributeError"),
        ("Edges = 3", "is not callable"),
        ("def Edges(weights, name): return 3", "returned int, not Adapter"),
        ("def Edges(weights, name): return 1 / 0", "ZeroDivisionError"),
        ("def Edges(): return 1", "it takes no name and no weights"),
    ],
)
def test_an_error_of_a_plugin_names_its_distribution(site: Site, code: str, words: str) -> None:
    site.add_toy()
    site.add_edges(code=code)
    with pytest.raises(refiners.PluginError, match=words) as caught:
        refiners.load_adapter("edges")
    assert caught.value.dist == "refiners-edges"
    assert refiners.load_model("toy").adapters == ()


@pytest.mark.parametrize("options", [{"strenght": 1}, {"weights": None}])
def test_an_unknown_option_is_refused(site: Site, options: dict[str, object]) -> None:
    site.add_edges()
    with pytest.raises(refiners.OptionError, match="Its options: strength"):
        refiners.load_adapter("edges", **options)


def test_options_that_a_base_class_takes_are_known(site: Site) -> None:
    code = EDGES + "\n\nclass Soft(Edges):\n    def __init__(self, *, soft=True, **rest):\n"
    code += "        super().__init__(**rest)\n        self.soft = soft\n"
    site.add_edges(EDGES_TOML.replace("adapter:Edges", "adapter:Soft"), code)
    assert refiners.load_adapter("edges", soft=False, strength=0.5).strength == 0.5
    with pytest.raises(refiners.OptionError, match=r"it takes no sofd.* soft, strength\."):
        refiners.load_adapter("edges", sofd=True)


def test_arguments_that_are_not_names_or_models_are_refused(site: Site, tmp_path: Path) -> None:
    site.add_edges()
    for what in (3, None):
        with pytest.raises(refiners.UnsupportedError):
            refiners.load_model(what)
    with pytest.raises(refiners.UnknownNameError):
        refiners.load_model("sd16")
    with pytest.raises(refiners.NotInstalledError, match="pip install refiners-playground"):
        refiners.load_model("playground")
    with pytest.raises(refiners.OptionError):
        refiners.load_adapter(3)
    with pytest.raises(refiners.OptionError, match="not on str"):
        refiners.load_adapter("edges", "toy")


def test_a_chain_that_is_not_a_model_is_refused(site: Site) -> None:
    site.add_edges()
    with pytest.raises(refiners.IncompatibleError, match="a Chain does not name a base"):
        refiners.load_adapter("edges", Chain(Identity()))


def test_an_outline_has_all_structure_and_no_weights(site: Site, hub: LoopbackHub) -> None:
    pins = {"source": "hf:org/edges", "file": "model.safetensors"}
    site.add_edges(with_weights(EDGES_TOML, **pins), code=EDGES)
    site.add_toy()
    model = outline("toy", ["edges"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [adapter.name for adapter in model.adapters] == ["edges"]
    assert hub.requests == []


def test_a_broken_hook_module_is_a_warning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = hookspecs.BrokenHooks("odd", "refiners-odd", SystemExit(3))
    monkeypatch.setattr("refiners.installed.hook_modules.load_installed", lambda: [broken])
    load_hooks.cache_clear()
    site.add_toy()
    with pytest.warns(refiners.Notice, match="refiners-odd could not be loaded"):
        refiners.load_model("toy")
    refiners.load_model("toy")  # warns once


def test_the_weights_of_an_adapter_can_be_pickled(site: Site) -> None:
    site.add_edges()
    edges = refiners.load_adapter("edges")
    weights = edges._choose_source
    assert pickle.loads(pickle.dumps(weights)) == weights


def declaring(repo: str, commit: str, width: int) -> str:
    manifest = with_weights(
        EDGES_TOML, source=f"hf:{repo}", file="model.safetensors", revision=commit, sha256=SHA
    )
    return f"{manifest}shapes = {{ weight = [{width}] }}\n"


def test_a_header_of_another_shape_is_refused_before_the_bytes_are_fetched(
    site: Site, hub: LoopbackHub
) -> None:
    repo = hub.publish("org/edges", {"model.safetensors": DATA})
    site.add_edges(declaring("org/edges", repo.commit, 3))
    site.add_toy()
    with pytest.raises(refiners.IncompatibleError, match=r"weight in .* is \[2\], .* be \[3\]"):
        refiners.load_adapter("edges", refiners.load_model("toy"))
    assert ["bytes=0-100000" in r.headers.values() for r in hub.requests] == [True]
    with pytest.raises(refiners.OfflineError):
        refiners.load_adapter("edges", refiners.load_model("toy"), offline=True)


def test_a_matching_header_costs_one_request_and_none_when_cached(
    site: Site, hub: LoopbackHub
) -> None:
    repo = hub.publish("org/edges", {"model.safetensors": DATA})
    site.add_edges(declaring("org/edges", repo.commit, 2))
    site.add_toy()
    refiners.load_adapter("edges", refiners.load_model("toy"))
    hub.requests.clear()
    refiners.load_adapter("edges", refiners.load_model("toy"))
    assert hub.requests == []


def test_an_invalid_header_is_refused_before_the_bytes_are_fetched(
    site: Site, hub: LoopbackHub
) -> None:
    for junk in (b"{}", b"x" * 200_000):
        repo = hub.publish("org/edges", {"model.safetensors": junk})
        for folder in site.folder.glob("refiners_*"):
            shutil.rmtree(folder)
        site.add_edges(declaring("org/edges", repo.commit, 2))
        site.add_toy()
        with pytest.raises(refiners.IntegrityError, match="not a readable safetensors"):
            refiners.load_adapter("edges", refiners.load_model("toy"))


def test_adapters_on_the_model_are_considered(site: Site) -> None:
    site.add_toy()
    site.add_edges(EDGES_TOML.replace('stage = "branch"', 'stage = "branch", exclusive = true'))
    model = refiners.load_model("toy")
    first = refiners.load_adapter("edges", model)
    with pytest.raises(refiners.IncompatibleError, match=r"needs the slot toy\.linear exclusively"):
        refiners.load_adapter("edges", model)
    assert model.adapters == (first,)
    first.eject()
    assert refiners.load_adapter("edges", model).is_worn
