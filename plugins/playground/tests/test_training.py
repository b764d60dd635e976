import hashlib
import sys

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("scripts")


@pytest.mark.parametrize("shape", [(16, 16), (12, 96), (96, 12)])
def test_orthogonalised_matrices_stretch_every_direction_about_equally(shape):
    from refiners_train.engine.muon import orthogonalise

    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stretches = torch.linalg.svdvals(orthogonalise(matrix))
    assert stretches.min() > 0.3
    assert stretches.max() < 1.3


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [  # of the table of Sharma, Wu and Dalal 2005
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_of_colours_equals_the_published_one(first, second, distance):
    from refiners_playground.colour_distance import ciede2000

    assert ciede2000(first, second) == pytest.approx(distance, abs=1e-4)
    assert ciede2000(second, first) == pytest.approx(distance, abs=1e-4)


def test_palettes_are_compared_in_the_best_pairing():
    from refiners_playground.colour_distance import palette_distance

    assert palette_distance(["#ff0000", "#0000ff"], ["#0000ff", "#ff0000"]) == 0
    assert palette_distance(["#ffffff"], ["#000000", "#fefefe"]) < 1
    assert palette_distance(["#ffffff", "#000000"], ["#ffffff"]) == pytest.approx(50, abs=1)


def test_muon_takes_matrices_but_not_embeddings_norms_and_the_first_convolution():
    from optimiser import split_weights

    model = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 16, 3),
            "map": nn.Linear(16, 32, bias=False),
            "norm": nn.GroupNorm(4, 16),
            "table": nn.Embedding(40, 16),
        }
    )
    matrices, others = split_weights(model)
    assert [id(weight) for weight in matrices] == [id(model["map"].weight)]
    assert len(others) == 5


def test_the_learning_rate_rises_holds_and_falls():
    from refiners_train.engine.schedule import Schedule

    factor = Schedule(100, warm_up=10, hold=0.5, floor=0.1)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(49) == 1
    assert factor(75) == pytest.approx(0.55)
    assert factor(99) == pytest.approx(0.118)


def test_muon_and_adamw_together_fit_a_linear_map():
    from optimiser import Optimisers
    from refiners_train.engine.schedule import Schedule

    torch.manual_seed(0)
    model, wanted = nn.Linear(16, 16), torch.randn(16, 16)
    optimisers = Optimisers(
        model, muon=0.05, adam=0.01, betas=(0.9, 0.99), schedule=Schedule(300, 10, 0.3, 0.02)
    )
    x = torch.randn(256, 16)
    losses = []
    for step in range(300):
        loss = (model(x) - x @ wanted).square().mean()
        losses.append(loss.item())
        optimisers.step(loss, step)
    assert losses[-1] < 0.05 * losses[0]


def test_a_learner_of_matrices_alone_learns_and_resumes():
    from optimiser import Optimisers, split_weights

    torch.manual_seed(0)
    model = nn.Linear(16, 16, bias=False)
    assert split_weights(model)[1] == []
    before, x = model.weight.clone(), torch.randn(4, 16)
    for _ in range(2):
        optimisers = Optimisers(
            model, muon=0.05, adam=0.01, betas=(0.9, 0.99), schedule=lambda step: 1.0
        )
        optimisers.step(model(x).square().mean(), 0)
        optimisers.load_state_dict(optimisers.state_dict())
    assert not torch.equal(model.weight, before)


def test_an_interrupted_run_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    from argparse import Namespace

    import run
    from loop import Recipe, train

    monkeypatch.setattr(run, "RUNS", tmp_path)
    seen: list[int] = []

    def learn(steps: int) -> nn.Linear:
        torch.manual_seed(0)
        learner = nn.Linear(16, 16)

        def loss_of(step, random):
            seen.append(step)
            return learner(torch.ones(1, 16)).square().mean()

        options = Namespace(steps=steps, measure_every=2, fresh=False)
        train("trial", learner, Recipe(1e-3, 1e-3), loss_of, lambda: {"figure": 1.0}, options)
        return learner

    learn(3)
    learn(5)
    assert seen == [0, 1, 2, 3, 4]


def test_the_manifest_writer_updates_sizes_and_checksums(tmp_path, monkeypatch):
    import write_manifest

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(write_manifest, "weights_of", lambda module: tmp_path / "weights")
    manifest = (
        'source = "pkg:refiners_playground/weights/a.safetensors"\nformat = "safetensors"\n'
        'sha256 = "00"\nsize = 1\nlicense = "MIT"\n'
    )
    renewed = write_manifest.renewed(manifest)
    assert f'sha256 = "{hashlib.sha256(b"weights").hexdigest()}"\nsize = 7\nlicense' in renewed
    assert 'format = "safetensors"\n' in renewed
    missing = manifest.replace("a.safetensors", "b.safetensors")
    assert write_manifest.renewed(missing) == missing


def test_manifests_state_the_sizes_and_sums_of_the_files_that_are_shipped():
    import write_manifest

    paths = [*write_manifest.manifests()]
    assert len(paths) >= 10
    for path in paths:
        assert write_manifest.renewed(path.read_text("utf-8")) == path.read_text("utf-8")


def test_a_cell_learns_the_object_whose_centre_is_near():
    from refiners_playground.recogniser import ITEM_WORDS, PICTURE_WORDS
    from refiners_playground.scene import Item, Scene
    from train_recogniser import loss_of

    items = (Item("ring", "blue", radius=0.36, x=-0.625), Item("star", "red", radius=0.4, x=0.625))
    scene = Scene(items, "white")

    def values(first: str, second: str) -> dict[str, torch.Tensor]:
        score = torch.full((1, 1, 8, 8), -4.0)
        score[..., 3:5, [1, 6]] = 4
        shape = torch.zeros(1, len(ITEM_WORDS["shape"]), 8, 8)
        shape[:, ITEM_WORDS["shape"].index(first), :, :4] = 5
        shape[:, ITEM_WORDS["shape"].index(second), :, 4:] = 5
        zeros = {name: torch.zeros(1, len(words), 8, 8) for name, words in ITEM_WORDS.items()}
        whole = {name: torch.zeros(1, len(words)) for name, words in PICTURE_WORDS.items()}
        place = {"place": torch.zeros(1, 3, 8, 8)}
        return zeros | whole | place | {"score": score, "shape": shape}

    right = loss_of(values("ring", "star"), [scene])
    assert right < loss_of(values("star", "ring"), [scene]) - 1
    empty = values("ring", "star") | {"score": torch.full((1, 1, 8, 8), -4.0)}
    assert right < loss_of(empty, [scene])


def test_latents_of_every_kind_are_cached_for_their_autoencoder(tmp_path, monkeypatch):
    import data

    monkeypatch.setattr(data, "RUNS", tmp_path)
    for kind in ("faces", "pairs"):
        pictures = data.load_pictures(kind, 3)
        assert pictures.latents.shape == (3, 4, 16, 16)
        later = data.load_pictures(kind, 2, first=1)
        assert later.scenes == pictures.scenes[1:]
        assert torch.allclose(later.latents.float(), pictures.latents[1:].float(), atol=0.02)
    monkeypatch.setattr(data, "encode", None)  # all are cached
    assert torch.equal(
        data.load_pictures("faces", 3).latents[1:2], data.load_pictures("faces", 3).latents[1:2]
    )


def test_new_words_get_new_tokens_and_old_ones_keep_theirs():
    from write_tokenizer import extend

    vocabulary = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5}
    merges: list[tuple[str, str]] = []
    extend(vocabulary, merges, ["ab", "ba"])
    first = dict(vocabulary)
    extend(vocabulary, merges, ["ab", "ba", "aba"])
    assert {word: vocabulary[word] for word in first} == first
    assert vocabulary["aba</w>"] == len(vocabulary) - 1
    assert merges[:2] == [("a", "b</w>"), ("b", "a</w>")]


def test_a_device_of_the_command_line_becomes_the_default_one(monkeypatch):
    import run

    monkeypatch.setattr(sys, "argv", ["x", "--device", "meta", "--steps", "3"])
    try:
        options = run.arguments("", steps=5, measure_every=2)
        assert torch.zeros(1).device.type == "meta"
    finally:
        torch.set_default_device(None)
    assert (options.steps, options.device) == (3, "meta")
