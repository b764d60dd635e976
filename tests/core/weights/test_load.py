import json
import re

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Sum, select, weights
from refiners_core.errors import WeightsError
from refiners_core.weights import AS_IS, LINEAR_AS_CONV, TRANSPOSED, KeyMap, MisfitError, stacked

LAYOUT = KeyMap(
    {"first": "in", "blocks.{i}": "block.{i}.0", "blocks.{i}.norm": "block.{i}.norm"},
    older={"start": "in"},
    ignored=["*.position_ids"],
)


def build_tree() -> Chain:
    return Chain(
        first=nn.Linear(2, 3),
        blocks=Chain(**{"0": Chain(lin=nn.Linear(3, 3), norm=nn.LayerNorm(3))}),
    )


def bits(tree: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in tree.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def tree() -> Chain:
    torch.manual_seed(0)
    return build_tree()


@pytest.fixture
def file(tree, tmp_path):
    weights.save(tree, tmp_path / "tree.safetensors", LAYOUT)
    return tmp_path / "tree.safetensors"


# --- layouts ---


def test_the_longest_prefix_wins_and_the_rest_is_kept():
    assert LAYOUT.published("first.weight") == "in.weight"
    assert LAYOUT.published("blocks.12.lin.bias") == "block.12.0.lin.bias"
    assert LAYOUT.published("blocks.12.norm.bias") == "block.12.norm.bias"
    assert LAYOUT.published("blocks.12.norm") == "block.12.norm"


def test_a_prefix_is_whole_words():
    with pytest.raises(WeightsError, match=re.escape("'firsts.weight'")):
        LAYOUT.published("firsts.weight")


def test_numbers_may_stand_inside_words():
    layout = KeyMap({"down.{i}.resnet_{j}": "d.{i}.r.{j}", "down.{i}.resnet_{j}.conv_1": "c{j}{i}"})
    assert layout.published("down.0.resnet_11.conv_2.weight") == "d.0.r.11.conv_2.weight"
    assert layout.published("down.0.resnet_11.conv_1.weight") == "c110.weight"


def test_layouts_compose_like_trees():
    whole = KeyMap({"head": "out"}) | LAYOUT.under("body.{k}", "parts.{k}.net")
    assert whole.published("head.weight") == "out.weight"
    assert whole.published("body.3.blocks.1.norm.weight") == "parts.3.net.block.1.norm.weight"
    assert whole.current("parts.7.net.start.bias") == "parts.7.net.in.bias"
    assert whole.is_ignored("parts.7.net.x.position_ids")
    assert AS_IS.published("any.thing") == "any.thing"


# --- loading ---


def test_a_round_trip_keeps_every_bit(tree, file, tmp_path):
    again = weights.load(build_tree(), file, LAYOUT)
    assert same(bits(again), bits(tree))
    weights.save(again, tmp_path / "again.safetensors", LAYOUT)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_tree_on_the_meta_device_takes_tensors_without_copying(tree):
    with torch.device("meta"):
        empty = build_tree()
    given = weights.published(tree, LAYOUT)
    weights.load(empty, given, LAYOUT)
    assert empty.first.weight.data_ptr() == given["in.weight"].data_ptr()
    assert not any(weight.is_meta for weight in empty.parameters())
    assert all(weight.requires_grad for weight in empty.parameters())


def test_optimisers_keep_their_parameters(tree, file):
    other = build_tree()
    known = list(other.parameters())
    weights.load(other, file, LAYOUT)
    assert all(a is b for a, b in zip(known, other.parameters(), strict=True))
    assert same(bits(other), bits(tree))


def test_weights_are_cast_while_loading(tree, file, tmp_path):
    with torch.device("meta"):
        empty = build_tree()
    assert weights.load(empty, file, LAYOUT, dtype=torch.bfloat16).dtype == torch.bfloat16
    weights.save(tree, tmp_path / "half.safetensors", LAYOUT, dtype=torch.float16)
    assert weights.read(tmp_path / "half.safetensors")["in.weight"].dtype == torch.float16
    # A tree with values keeps its dtype; a tree on the meta device takes that of the file.
    assert weights.load(build_tree(), tmp_path / "half.safetensors", LAYOUT).dtype == torch.float32
    with torch.device("meta"):
        empty = build_tree()
    assert weights.load(empty, tmp_path / "half.safetensors", LAYOUT).dtype == torch.float16


def test_buffers_are_loaded_and_transient_ones_left_out():
    tree, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    tree.running_mean += 1.5
    tree.register_buffer("scratch", torch.ones(1), persistent=False)
    weights.load(other, weights.published(tree))
    assert same(bits(other), bits(tree))


def test_deprecated_names_are_read_and_weightless_keys_ignored(tree):
    given = weights.published(tree, LAYOUT)
    given["start.weight"], given["x.position_ids"] = given.pop("in.weight"), torch.zeros(1)
    assert same(bits(weights.load(build_tree(), given, LAYOUT)), bits(tree))


def test_a_linear_layer_may_be_published_as_a_convolution():
    layout = KeyMap({"first": "conv"}, transforms={"first": LINEAR_AS_CONV})
    tree = Chain(first=nn.Linear(2, 3))
    given = weights.published(tree, layout)
    assert given["conv.weight"].shape == (3, 2, 1, 1)
    assert same(bits(weights.load(Chain(first=nn.Linear(2, 3)), given, layout)), bits(tree))


# --- refusals ---


def test_all_faults_are_reported_at_once_and_nothing_changes(tree):
    given = weights.published(tree, LAYOUT)
    given["in.wieght"] = given.pop("in.weight")
    given["strange"] = torch.zeros(1)
    given["block.0.norm.bias"] = torch.zeros(5)
    other = build_tree()
    before = bits(other)
    with pytest.raises(MisfitError) as refusal:
        weights.load(other, given, LAYOUT)
    assert refusal.value.missing == ("in.weight",)
    assert refusal.value.unexpected == ("in.wieght", "strange")
    assert refusal.value.misshapen == {"block.0.norm.bias": ((5,), (3,))}
    assert "in.wieght (near in.weight)" in str(refusal.value)
    assert "block.0.norm.bias is [5], wanted [3]" in str(refusal.value)
    assert same(bits(other), before)


def test_a_long_list_of_faults_is_cut_but_kept():
    tree = Chain(**{f"l{i}": nn.Linear(1, 1) for i in range(40)})
    with pytest.raises(MisfitError) as refusal:
        weights.load(tree, {})
    assert "and 72 more" in str(refusal.value)
    assert len(str(refusal.value)) < 1000
    assert len(refusal.value.missing) == 80


def header(shape, end) -> bytes:
    text = json.dumps({"in.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}})
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04" + bytes(100),
        header([3, 2], 24) + bytes(10),
        header([3, 2], 12) + bytes(12),
    ],
    ids=["empty", "text", "pickle", "truncated", "lying"],
)
def test_damaged_and_foreign_files_are_named(content, tree, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    before = bits(tree)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        weights.load(tree, path, LAYOUT)
    assert same(bits(tree), before)


def test_a_missing_file_and_a_folder_are_named(tree, tmp_path):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(WeightsError, match=re.escape(str(path))):
            weights.load(tree, path, LAYOUT)


def test_a_file_of_another_network_is_refused_by_name(file):
    with pytest.raises(MisfitError, match=rf"{re.escape(str(file))} for Linear: 2 missing"):
        weights.load(nn.Linear(1, 1), file)


# --- saving ---


def test_saving_replaces_a_file_only_when_it_is_complete(tree, file):
    before = file.read_bytes()
    with torch.device("meta"):
        empty = build_tree()
    with pytest.raises(WeightsError, match="no values yet"):
        weights.save(empty, file, LAYOUT)
    assert file.read_bytes() == before
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.save(tree, file / "x" / "y.safetensors", LAYOUT)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_can_be_saved_over_itself_while_its_tensors_are_mapped(tree, file):
    with torch.device("meta"):
        mapped = build_tree()
    weights.load(mapped, file, LAYOUT)
    weights.save(mapped, file, LAYOUT)
    assert same(bits(mapped), bits(tree))
    assert same(bits(weights.load(build_tree(), file, LAYOUT)), bits(tree))


def test_metadata_is_kept_in_the_header(tree, tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save(tree, path, LAYOUT, metadata={"trained": "today"})
    with weights.TensorFile(path) as file:
        assert file.metadata() == {"format": "pt", "trained": "today"}


def test_tied_weights_are_written_under_both_names(tmp_path):
    tree = Chain(a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    tree.b.weight = tree.a.weight
    weights.save(tree, tmp_path / "a.safetensors")
    again = weights.read(tmp_path / "a.safetensors")
    assert torch.equal(again["a.weight"], again["b.weight"])


# --- several tensors in one, one tensor in several places ---

FUSED = {"to_q": 4, "to_k": 2, "to_v": 2}
"""The features of three layers that are published as one."""


def fused_layout(sizes=(4, 2, 2), **options) -> KeyMap:
    return KeyMap(
        dict.fromkeys(FUSED, "fused"),
        transforms={
            name: stacked(share, 3, sizes=sizes, **options) for share, name in enumerate(FUSED)
        },
    )


def fused_tree() -> Chain:
    return Chain(**{name: nn.Linear(3, size) for name, size in FUSED.items()})


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("is_meta", [False, True])
def test_unequal_shares_are_read_along_either_dimension(is_turned, is_meta):
    options = {"dim": -1, "transform": TRANSPOSED} if is_turned else {}
    layout = fused_layout(**options)
    matrix, bias = torch.randn(8, 3), torch.randn(8)
    file = {"fused.weight": matrix.T.contiguous() if is_turned else matrix, "fused.bias": bias}
    with torch.device("meta" if is_meta else "cpu"):
        tree = fused_tree()
    weights.load(tree, file, layout)
    x = torch.randn(2, 3)
    assert torch.allclose(torch.cat([layer(x) for layer in tree], 1), x @ matrix.T + bias)
    assert same(weights.published(tree, layout), file)


def test_shares_that_cannot_be_divided_are_listed():
    file = {"fused.weight": torch.zeros(9, 3), "fused.bias": torch.zeros(8)}
    with pytest.raises(MisfitError, match=re.escape("fused.weight is [9, 3], wanted [8, 3]")):
        weights.load(fused_tree(), file, fused_layout())
    with pytest.raises(MisfitError, match="of another shape"):
        weights.load(fused_tree(), file | {"fused.weight": torch.zeros(8, 3)}, fused_layout(()))


@pytest.mark.parametrize(
    ("share", "options"), [(3, {}), (-1, {}), (0, {"sizes": (1, 2)}), (0, {"sizes": (1, 0, 1)})]
)
def test_shares_that_do_not_exist_are_refused(share, options):
    with pytest.raises(WeightsError, match=f"share {share} of 3"):
        stacked(share, 3, **options)


def test_a_transposed_matrix_published_as_ours_is_refused():
    layout = KeyMap({"": ""}, transforms={"a": TRANSPOSED})
    tree = Chain(a=nn.Linear(2, 3, bias=False))
    weights.load(tree, {"a.weight": torch.ones(2, 3)}, layout)
    with pytest.raises(MisfitError, match=re.escape("a.weight is [3, 2], wanted [2, 3]")):
        weights.load(tree, {"a.weight": torch.ones(3, 2)}, layout)
    with pytest.raises(MisfitError, match=re.escape("a.weight is [6], wanted [2, 3]")):
        weights.load(tree, {"a.weight": torch.ones(6)}, layout)


@pytest.mark.parametrize("is_meta", [False, True])
def test_layers_that_share_a_parameter_still_do(is_meta):
    def build() -> Chain:
        tree = Chain(words=nn.Embedding(5, 3), body=nn.Linear(3, 3), head=nn.Linear(3, 5, False))
        tree.head.weight = tree.words.weight
        return tree

    with torch.device("meta" if is_meta else "cpu"):
        tree = build()
    names = {"words": "table", "head": "table", "body": "body"}
    file = {
        "table.weight": torch.randn(5, 3),
        "body.weight": torch.eye(3),
        "body.bias": torch.ones(3),
    }
    weights.load(tree, file, KeyMap(names))
    assert tree.head.weight is tree.words.weight
    assert torch.equal(tree.head.weight, file["table.weight"])
    # Under two names the tree has one parameter all the same: that of the last.
    with torch.device("meta" if is_meta else "cpu"):
        tree = build()
    twice = file | {"head.weight": torch.randn(5, 3)}
    weights.load(tree, twice, KeyMap(names | {"head": "head"}))
    assert tree.head.weight is tree.words.weight
    assert torch.equal(tree.words.weight, twice["head.weight"])


class Doubled(Adapter):
    def edits(self, model):
        return (
            select(model)
            .of(nn.Linear)
            .wrap(lambda inner, seat: Sum(inner, self.layer(seat, lambda: nn.Linear(3, 3))))
        )


def test_layers_of_adapters_are_neither_saved_nor_required(tree, file, tmp_path):
    published = file.read_bytes()
    with Doubled().on(tree):
        weights.save(tree, tmp_path / "worn.safetensors", LAYOUT)
        weights.load(tree, file, LAYOUT)
    assert (tmp_path / "worn.safetensors").read_bytes() == published


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    weights.write({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_word_comes_before_a_pattern_that_fits_it_too(is_turned):
    names = {"down.{i}": "blocks.{i}", "down.0": "first"}
    layout = KeyMap(dict(reversed(names.items())) if is_turned else names)
    assert layout.published("down.0.weight") == "first.weight"
    assert layout.published("down.1.weight") == "blocks.1.weight"
