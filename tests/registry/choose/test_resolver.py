"""Resolution: pure functions from names and facts to a plugin, or to the reasons against it."""

from pathlib import Path

import msgspec
import pytest
from refiners.catalog import Listed, listed
from refiners.choose.compatibility import (
    Accepted,
    ModelFacts,
    Rejected,
    Verdict,
    WornAdapter,
    check_api,
    check_shapes,
    choose,
    trace,
)
from refiners.choose.resolver import find
from refiners.errors import (
    AmbiguousNameError,
    IncompatibleError,
    NotInstalledError,
    UnknownNameError,
)
from refiners.installed.inventory import Broken, Installed
from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterManifest, AdapterSpec

MANIFEST = """
schema = 1
[adapter.edges]
factory = "refiners_edges.adapter:Edges"
summary = ""
core-api = ">=1.0,<2"
[[adapter.edges.variant]]
base = "sdxl"
weights = "sdxl"
[[adapter.edges.variant]]
base = "sd15"
facts = { cross_attention_dim = 768 }
targets = [{ slot = "unet.input", stage = "branch" }]
weights = "sd15"
[[adapter.edges.variant]]
name = "bare"
targets = [{ slot = "unet.linear", stage = "inputs" }]
[adapter.edges.weights.sd15]
source = "hf:org/edges"
file = "sd15.safetensors"
[adapter.edges.weights.sdxl]
source = "pkg:refiners_edges_xl/sdxl.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
SD15 = ModelFacts(
    "this sd15 model", "sd15", {"cross_attention_dim": 768}, frozenset({"unet.input"})
)


def edges(dist: str = "refiners-edges") -> Installed[AdapterSpec]:
    manifest, faults = parse(MANIFEST, AdapterManifest)
    assert manifest is not None, faults
    return Installed("edges", dist, "1.0", Path("adapter.toml"), manifest.adapter["edges"])


def verdicts(model: ModelFacts, *packages: str, api: str = "1.0"):
    """Returns the verdict on each variant, in the order of the manifest."""
    judged = trace(edges(), model, api_version=api, has_package=lambda name: name in packages)
    return tuple(sorted(judged, key=_place))


def _place(verdict: Verdict) -> int:
    order = ("sdxl", "sd15", "bare")
    label = verdict.candidate.partition("(")[2].strip(")")
    return order.index(label) if label in order else -1


def test_short_and_canonical_names_are_found() -> None:
    assert find("edges", [edges()]) == edges()
    assert find("refiners-edges:edges", [edges()]) == edges()
    assert find("Refiners_Edges:edges", [edges()]) == edges()


def test_two_providers_of_a_short_name_are_both_named() -> None:
    both = [edges("refiners-a"), edges("refiners-b")]
    with pytest.raises(AmbiguousNameError) as caught:
        find("edges", both)
    assert "refiners-a:edges and refiners-b:edges" in str(caught.value)
    assert find("refiners-b:edges", both).dist == "refiners-b"


def test_the_error_of_a_published_name_names_its_package() -> None:
    with pytest.raises(NotInstalledError, match="pip install refiners-controlnet") as caught:
        find("controlnet-canny", [edges()], catalog=listed())
    assert caught.value.dist == "refiners-controlnet"


def test_the_error_of_a_published_name_names_its_broken_package() -> None:
    broken = Broken("main", "refiners-controlnet", "its package is gone")
    with pytest.raises(NotInstalledError, match="its package is gone") as caught:
        find("controlnet-canny", [], broken=[broken], catalog=listed())
    assert "--force-reinstall refiners-controlnet" in caught.value.hint


def test_installed_and_published_names_are_suggested_for_a_misspelt_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'edges'"):
        find("edgse", [edges()], catalog=listed())
    with pytest.raises(UnknownNameError, match="Did you mean 'controlnet-canny'"):
        find("controlnet_cany", [edges()], catalog=listed())


def test_the_error_of_an_unknown_name_lists_the_installed_ones() -> None:
    broken = Broken("main", "refiners-odd", "no TOML")
    with pytest.raises(UnknownNameError, match="Installed: edges") as caught:
        find("zzzz", [edges()], broken=[broken])
    assert "refiners-odd" in str(caught.value)


def test_of_many_installed_names_the_first_are_listed() -> None:
    many = [msgspec.structs.replace(edges(), name=f"edges-{i:02}") for i in range(30)]
    with pytest.raises(UnknownNameError, match=r"edges-11 and 18 more. Run refiners list"):
        find("zzzz", many)


def test_the_catalog_lists_the_first_party_plugins() -> None:
    assert {entry.id for entry in listed()} >= {
        "refiners-controlnet:controlnet-canny",
        "refiners-ipadapter:ip-adapter",
        "refiners-playground:playground",
    }
    assert all(isinstance(entry, Listed) and entry.summary for entry in listed())


def test_a_suitable_variant_is_accepted_and_the_others_have_reasons() -> None:
    sdxl, sd15, bare = verdicts(SD15)
    assert sdxl == Rejected(
        "edges (sdxl)", "needs sdxl, this sd15 model is sd15", "Load a model of base sdxl."
    )
    assert isinstance(sd15, Accepted)
    assert isinstance(bare, Rejected)
    assert "does not have the slot unet.linear" in bare.reason
    assert choose(edges(), SD15, (sdxl, sd15, bare)).base == "sd15"


def test_facts_are_compared() -> None:
    other = ModelFacts("this sd15 model", "sd15", {"cross_attention_dim": 1024}, SD15.slots)
    assert "needs cross_attention_dim = 768, this sd15 model has 1024" in str(verdicts(other)[1])
    silent = ModelFacts("this sd15 model", "sd15", {}, SD15.slots)
    assert "this sd15 model states none" in str(verdicts(silent)[1])


def test_a_variant_for_any_base_suits_a_model_with_its_slots() -> None:
    language = ModelFacts("this llama model", "llama", {}, frozenset({"unet.linear"}))
    assert [type(verdict) for verdict in verdicts(language)] == [Rejected, Rejected, Accepted]


def test_unknown_slots_refuse_nothing() -> None:
    unbuilt = ModelFacts("toy", "toy", {}, None)
    assert isinstance(verdicts(unbuilt)[2], Accepted)


def test_weights_in_a_package_need_the_package() -> None:
    sdxl = ModelFacts("this sdxl model", "sdxl", {}, frozenset())
    assert "pip install refiners-edges-xl" in str(verdicts(sdxl)[0])
    assert isinstance(verdicts(sdxl, "refiners_edges_xl")[0], Accepted)


def test_a_plain_tree_does_not_name_a_base() -> None:
    tree = ModelFacts("a Chain", None, {}, frozenset())
    assert "needs sdxl, a Chain does not name a base" in str(verdicts(tree)[0])


def test_no_suitable_variant_is_an_error_with_every_reason() -> None:
    toy = ModelFacts("this toy model", "toy", {}, frozenset())
    with pytest.raises(IncompatibleError) as caught:
        choose(edges(), toy, verdicts(toy))
    text = str(caught.value)
    assert all(f"edges ({label}): " in text for label in ("sdxl", "sd15", "bare"))
    assert len(caught.value.trace) == 3


@pytest.mark.parametrize(("api", "fits"), [("1.0", True), ("1.7", True), ("2.0", False)])
def test_the_core_api_is_compared_as_a_version(api: str, fits: bool) -> None:
    assert (check_api(edges(), api) is None) == fits
    if not fits:
        (refusal,) = verdicts(SD15, api=api)
        assert "needs core API >=1.0,<2, this is 2.0" in str(refusal)


def changed(manifest: str) -> Installed[AdapterSpec]:
    read, faults = parse(manifest, AdapterManifest)
    assert read is not None, faults
    return Installed("edges", "refiners-edges", "1.0", Path("adapter.toml"), read.adapter["edges"])


def judged(adapter: Installed[AdapterSpec], model: ModelFacts) -> list[str]:
    """Returns the verdicts as text, the best candidate first."""
    return [str(v) for v in trace(adapter, model, api_version="1.0", has_package=lambda _: True)]


def judged_bare(adapter: Installed[AdapterSpec], model: ModelFacts) -> str:
    """Returns the verdict on the variant for any base."""
    return next(text for text in judged(adapter, model) if text.startswith("edges (bare)"))


def test_an_alias_is_found_unless_it_is_the_name_of_a_plugin() -> None:
    aliased = changed(MANIFEST.replace('summary = ""', 'summary = ""\naliases = ["canny"]'))
    assert find("canny", [aliased]) == aliased
    assert find("refiners-edges:canny", [aliased]) == aliased
    owner = Installed("canny", "refiners-canny", "1.0", Path("adapter.toml"), aliased.spec)
    assert find("canny", [aliased, owner]) == owner
    with pytest.raises(UnknownNameError, match="Did you mean 'canny'"):
        find("cany", [aliased])
    listing = Listed(name="e", kind="adapter", distribution="d", summary="s", aliases=("f",))
    with pytest.raises(NotInstalledError, match="pip install d"):
        find("f", [], catalog=[listing])


def test_the_base_comes_before_any_base_and_the_dtype_of_the_model_first() -> None:
    any_first = MANIFEST.replace(
        '[[adapter.edges.variant]]\nbase = "sdxl"',
        '[[adapter.edges.variant]]\nname = "anything"\n'
        '[[adapter.edges.variant]]\nbase = "sd15"\ndtype = "float16"\nname = "half"\n'
        '[[adapter.edges.variant]]\nbase = "sdxl"',
        1,
    )
    adapter = changed(any_first)
    half = ModelFacts("m", "sd15", {"cross_attention_dim": 768}, None, dtype="float16")
    names = ["half", "sd15", "anything"]
    assert [text.split()[1].strip("():") for text in judged(adapter, half)[:3]] == names
    full = ModelFacts("m", "sd15", {"cross_attention_dim": 768}, None, dtype="float32")
    assert judged(adapter, full)[:2] == ["edges (sd15): suits.", "edges (half): suits."]


def test_either_adapter_may_declare_a_conflict() -> None:
    shy = changed(MANIFEST.replace('summary = ""', 'summary = ""\nconflicts = ["other"]'))
    wearing = ModelFacts("m", None, {}, None, worn=(WornAdapter("other", "refiners-o:other"),))
    assert "its manifest lists other as a conflict. Eject other" in judged_bare(shy, wearing)
    rude = ModelFacts("m", None, {}, None, worn=(WornAdapter("rude", "o:rude", ("edges",)),))
    assert "the manifest of rude lists it as a conflict" in judged_bare(edges(), rude)


@pytest.mark.parametrize("owner", ["candidate", "other"])
def test_an_exclusive_slot_holds_one_adapter(owner: str) -> None:
    mine = changed(MANIFEST.replace('"inputs" }', '"inputs", exclusive = true }'))
    plain, alone = edges().spec.variant[2].targets, mine.spec.variant[2].targets
    worn = WornAdapter("other", "o:other", (), alone if owner == "other" else plain)
    model = ModelFacts("m", None, {}, None, worn=(worn,))
    text = judged_bare(mine if owner == "candidate" else edges(), model)
    assert "needs the slot unet.linear exclusively" in text
    neither = ModelFacts("m", None, {}, None, worn=(WornAdapter("other", "o:other", (), plain),))
    assert "suits" in judged_bare(edges(), neither)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"k": (4, "width")}, None),
        ({"k": ("*", 8), "b": ()}, None),
        ({"k": (4, 9)}, "k in f is [4, 8], for m it should be [4, 9]"),
        ({"k": (4,)}, "it should be [4]"),
        ({"k": (4, "depth")}, "it should be [4, depth]"),
        ({"other": (1,)}, "f has no tensor other"),
    ],
)
def test_shapes_in_a_header_are_compared(
    wanted: dict[str, tuple[object, ...]], message: str
) -> None:
    model = ModelFacts("m", "b", {"width": 8})
    refusal = check_shapes("edges (b)", "f", wanted, {"k": (4, 8), "b": ()}, model)
    assert refusal is None if message is None else message in str(refusal)
