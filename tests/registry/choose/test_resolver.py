"""Resolution: pure functions from what was read to an answer or to the reasons against it."""

from pathlib import Path

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
    """Returns what is said of each variant, in the order of the manifest."""
    said = trace(edges(), model, api_version=api, has_package=lambda name: name in packages)
    return tuple(sorted(said, key=_place))


def _place(verdict: Verdict) -> int:
    order = ("sdxl", "sd15", "bare")
    label = verdict.candidate.partition("(")[2].strip(")")
    return order.index(label) if label in order else -1


def test_short_and_canonical_names_lead_to_it() -> None:
    assert find("edges", [edges()]) == edges()
    assert find("refiners-edges:edges", [edges()]) == edges()
    assert find("Refiners_Edges:edges", [edges()]) == edges()


def test_two_providers_of_a_short_name_are_both_named() -> None:
    both = [edges("refiners-a"), edges("refiners-b")]
    with pytest.raises(AmbiguousNameError) as caught:
        find("edges", both)
    assert "refiners-a:edges and refiners-b:edges" in str(caught.value)
    assert find("refiners-b:edges", both).dist == "refiners-b"


def test_a_published_name_says_what_to_install() -> None:
    with pytest.raises(NotInstalledError, match="pip install refiners-controlnet") as caught:
        find("controlnet-canny", [edges()], catalog=listed())
    assert caught.value.dist == "refiners-controlnet"


def test_a_published_name_of_a_broken_package_says_so() -> None:
    broken = Broken("main", "refiners-controlnet", "its package is gone")
    with pytest.raises(NotInstalledError, match="its package is gone") as caught:
        find("controlnet-canny", [], broken=[broken], catalog=listed())
    assert "--force-reinstall refiners-controlnet" in caught.value.hint


def test_a_misspelt_name_is_guessed_from_installed_and_published() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'edges'"):
        find("edgse", [edges()], catalog=listed())
    with pytest.raises(UnknownNameError, match="Did you mean 'controlnet-canny'"):
        find("controlnet_cany", [edges()], catalog=listed())


def test_an_unknown_name_says_what_is_there() -> None:
    broken = Broken("main", "refiners-odd", "no TOML")
    with pytest.raises(UnknownNameError, match="Installed: edges") as caught:
        find("zzzz", [edges()], broken=[broken])
    assert "refiners-odd" in str(caught.value)


def test_the_catalog_knows_what_is_first_party() -> None:
    assert {one.id for one in listed()} >= {
        "refiners-controlnet:controlnet-canny",
        "refiners-ipadapter:ip-adapter",
        "refiners-playground:playground",
    }
    assert all(isinstance(one, Listed) and one.summary for one in listed())


def test_a_suitable_variant_is_accepted_and_the_others_say_why_not() -> None:
    sdxl, sd15, bare = verdicts(SD15)
    assert sdxl == Rejected(
        "edges (sdxl)", "needs sdxl, this sd15 model is sd15", "Load a model of base sdxl."
    )
    assert isinstance(sd15, Accepted)
    assert isinstance(bare, Rejected)
    assert "offers no slot unet.linear" in bare.reason
    assert choose(edges(), SD15, (sdxl, sd15, bare)).base == "sd15"


def test_facts_are_compared() -> None:
    other = ModelFacts("this sd15 model", "sd15", {"cross_attention_dim": 1024}, SD15.slots)
    assert "needs cross_attention_dim = 768, this sd15 model has 1024" in str(verdicts(other)[1])
    silent = ModelFacts("this sd15 model", "sd15", {}, SD15.slots)
    assert "this sd15 model states none" in str(verdicts(silent)[1])


def test_a_variant_for_any_base_goes_where_the_slots_are() -> None:
    language = ModelFacts("this llama model", "llama", {}, frozenset({"unet.linear"}))
    assert [type(one) for one in verdicts(language)] == [Rejected, Rejected, Accepted]


def test_slots_that_are_not_known_yet_refuse_nothing() -> None:
    unbuilt = ModelFacts("toy", "toy", {}, None)
    assert isinstance(verdicts(unbuilt)[2], Accepted)


def test_weights_in_a_package_need_the_package() -> None:
    sdxl = ModelFacts("this sdxl model", "sdxl", {}, frozenset())
    assert "pip install refiners-edges-xl" in str(verdicts(sdxl)[0])
    assert isinstance(verdicts(sdxl, "refiners_edges_xl")[0], Accepted)


def test_a_tree_that_is_no_model_names_no_base() -> None:
    tree = ModelFacts("a Chain", None, {}, frozenset())
    assert "needs sdxl, a Chain names no base" in str(verdicts(tree)[0])


def test_no_suitable_variant_is_an_error_with_every_reason() -> None:
    toy = ModelFacts("this toy model", "toy", {}, frozenset())
    with pytest.raises(IncompatibleError) as caught:
        choose(edges(), toy, verdicts(toy))
    said = str(caught.value)
    assert all(f"edges ({label}): " in said for label in ("sdxl", "sd15", "bare"))
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
    return [str(v) for v in trace(adapter, model, api_version="1.0", has_package=lambda _: True)]


def said_of_any(adapter: Installed[AdapterSpec], model: ModelFacts) -> str:
    return next(said for said in judged(adapter, model) if said.startswith("edges (bare)"))


def test_an_alias_leads_to_it_unless_somebody_has_the_name() -> None:
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


def test_the_very_base_goes_before_any_and_the_dtype_of_the_model_first() -> None:
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
    assert [one.split()[1].strip("():") for one in judged(adapter, half)[:3]] == names
    full = ModelFacts("m", "sd15", {"cross_attention_dim": 768}, None, dtype="float32")
    assert judged(adapter, full)[:2] == ["edges (sd15): suits.", "edges (half): suits."]


def test_what_is_worn_may_conflict_from_either_side() -> None:
    shy = changed(MANIFEST.replace('summary = ""', 'summary = ""\nconflicts = ["other"]'))
    wearing = ModelFacts("m", None, {}, None, worn=(WornAdapter("other", "refiners-o:other"),))
    assert "cannot be worn beside other, as it says itself. Eject other" in said_of_any(
        shy, wearing
    )
    rude = ModelFacts("m", None, {}, None, worn=(WornAdapter("rude", "o:rude", ("edges",)),))
    assert "cannot be worn beside rude, as that says" in said_of_any(edges(), rude)


@pytest.mark.parametrize("owner", ["own", "other"])
def test_an_exclusive_slot_is_for_one(owner: str) -> None:
    mine = changed(MANIFEST.replace('"inputs" }', '"inputs", exclusive = true }'))
    plain, alone = edges().spec.variant[2].targets, mine.spec.variant[2].targets
    worn = WornAdapter("other", "o:other", (), alone if owner == "other" else plain)
    model = ModelFacts("m", None, {}, None, worn=(worn,))
    said = said_of_any(mine if owner == "own" else edges(), model)
    assert "wants the slot unet.linear alone" in said
    neither = ModelFacts("m", None, {}, None, worn=(WornAdapter("other", "o:other", (), plain),))
    assert "suits" in said_of_any(edges(), neither)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"k": (4, "width")}, None),
        ({"k": ("*", 8), "b": ()}, None),
        ({"k": (4, 9)}, "k in f is [4, 8], for m it should be [4, 9]"),
        ({"k": (4,)}, "it should be [4]"),
        ({"k": (4, "depth")}, "it should be [4, depth]"),
        ({"other": (1,)}, "f has no tensor other"),
    ],
)
def test_shapes_in_a_header_are_compared(wanted: dict[str, tuple[object, ...]], said: str) -> None:
    model = ModelFacts("m", "b", {"width": 8})
    refusal = check_shapes("edges (b)", "f", wanted, {"k": (4, 8), "b": ()}, model)
    assert refusal is None if said is None else said in str(refusal)
