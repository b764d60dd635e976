import re
from collections import Counter
from random import Random

import pytest
import torch
from refiners_playground.caption import WORDS, caption, full_caption, plain_caption, relation
from refiners_playground.curriculum import CURRICULUM, KINDS, lesson, lesson_caption, shares
from refiners_playground.face import Face, is_held_out_identity, keypoint_map
from refiners_playground.picture import draw_pictures
from refiners_playground.random_scene import pair_scene
from refiners_playground.scene import (
    HELD_OUT_SHAPE,
    SHAPES,
    Item,
    Scene,
    draw,
    is_held_out,
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_gives_the_same_picture_on_every_run(kind: str):
    assert lesson(kind, 5) == lesson(kind, 5)
    assert len({lesson(kind, index) for index in range(50)}) == 50


def test_pictures_do_not_change_between_releases():
    """A cache of latents, and a figure, belongs to these pictures."""
    first = lesson("canonical", 0)
    assert isinstance(first, Scene)
    assert plain_caption(first) == "a cyan circle on an orange background"
    assert plain_caption(lesson("pairs", 0)) == (
        "a purple triangle above a black ring on an orange background"
    )
    assert plain_caption(lesson("faces", 0)) == "a face with cyan hair on a green background"


@pytest.mark.parametrize("kind", CURRICULUM)
def test_the_base_is_not_taught_what_is_held_out(kind: str):
    for index in range(300):
        picture = lesson(kind, index)
        if isinstance(picture, Face):
            continue
        assert picture.style != "inked"
        for item in picture.items:
            assert item.shape in SHAPES
            assert not is_held_out(item.shape, item.colour, picture.background)


def test_held_out_people_are_in_no_lesson(monkeypatch: pytest.MonkeyPatch):
    from refiners_playground import random_scene

    numbers: list[int] = []
    posed = random_scene.posed_face

    def noted(random: Random, number: int) -> Face:
        numbers.append(number)
        return posed(random, number)

    monkeypatch.setattr(random_scene, "posed_face", noted)
    for index in range(200):
        lesson("faces", index)
    assert len(numbers) == 200
    assert not any(map(is_held_out_identity, numbers))


def test_the_subject_has_the_held_out_shape():
    assert HELD_OUT_SHAPE in WORDS
    assert {lesson("subject", i).items[0].shape for i in range(20)} == {HELD_OUT_SHAPE}


def test_the_shares_of_kinds_sum_to_one():
    assert sum(CURRICULUM.values()) == pytest.approx(1)
    early = shares(0.6)
    assert sum(early.values()) == pytest.approx(1)
    assert early["canonical"] == 0.6
    assert early["pairs"] / early["faces"] == pytest.approx(
        CURRICULUM["pairs"] / CURRICULUM["faces"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_captions_have_known_words_only(kind: str):
    random = Random(2)
    for index in range(300):
        text = lesson_caption(kind, lesson(kind, index), random)
        assert set(re.findall(r"\w+|[,.]", text)) <= WORDS


def test_some_captions_are_sentences_as_the_writer_writes_them():
    random = Random(8)
    texts = [lesson_caption("varied", lesson("varied", i), random) for i in range(1000)]
    assert 100 <= sum(text.endswith(".") for text in texts) <= 200
    assert any(re.fullmatch(r"picture an? .*\.", text) for text in texts)


def test_lessons_name_what_they_teach():
    random = Random(3)
    for index in range(200):
        scene = lesson("fills", index)
        words = set(lesson_caption("fills", scene, random).rstrip(".").split())
        assert words & {scene.items[0].fill, "solid"}
        scene = lesson("places", index)
        words = set(lesson_caption("places", scene, random).replace(",", "").rstrip(".").split())
        assert words & {scene.items[0].size, "big"}
        assert words & {"left", "right", "top", "bottom", "centre", "center"}
        scene = lesson("pairs", index)
        text = lesson_caption("pairs", scene, random)
        for item in scene.items:
            assert f"{item.colour} {item.shape}" in text


def test_every_relation_is_named_about_as_often():
    random = Random(4)
    words = ("left of", "right of", "above", "below", " and ")
    counts: Counter[str] = Counter()
    for index in range(1000):
        text = lesson_caption("pairs", lesson("pairs", index), random)
        counts.update(word for word in words if word in text)
    assert sum(counts.values()) == 1000
    assert all(150 <= counts[word] <= 250 for word in words)


def test_the_objects_of_pairs_do_not_touch():
    random = Random(5)
    for _ in range(300):
        scene = pair_scene(random)
        first, second = scene.items
        along = max(abs(first.x - second.x), abs(first.y - second.y))
        assert along >= first.radius + second.radius + 0.09
        for item in scene.items:
            assert max(abs(item.x), abs(item.y)) + item.radius <= 1
        assert relation(scene) in {"left of", "above"}


def test_both_objects_of_held_out_pairs_are_held_out():
    random = Random(6)
    for _ in range(50):
        scene = pair_scene(random, held_out=True)
        assert all(is_held_out(i.shape, i.colour, scene.background) for i in scene.items)


def test_plain_and_full_captions():
    star = Item("star", "red", "dotted", radius=0.36, x=-0.5, y=-0.5)
    ring = Item("ring", "blue", radius=0.36, x=0.5)
    scene = Scene((star,), "white")
    assert full_caption(scene) == (
        "a small dotted red star in the top left corner on a white background"
    )
    assert plain_caption(Scene((star, ring), "pink")) == (
        "a red star left of a blue ring on a pink background"
    )
    assert relation(Scene((ring, star), "pink")) == "right of"
    assert relation(scene) == ""


def test_soft_scenes_are_always_named_soft():
    random = Random(7)
    scene = Scene((Item("ring", "blue"),), "white", style="soft")
    assert all("soft" in caption(scene, random) for _ in range(30))
    sharp, soft = draw([Scene((Item("ring", "blue"),), "white"), scene])
    assert sharp.diff(dim=2).abs().max() > 2 * soft.diff(dim=2).abs().max()


def test_scenes_and_faces_are_drawn_in_their_order():
    pictures = [lesson("faces" if i % 3 == 0 else "varied", i) for i in range(9)]
    drawn = draw_pictures(pictures)
    for row, picture in enumerate(pictures):
        assert torch.equal(drawn[row : row + 1], draw_pictures([picture]))


def test_pictures_are_drawn_on_the_default_device():
    pictures = [lesson(kind, index) for kind in KINDS for index in range(4)]
    faces = [picture for picture in pictures if isinstance(picture, Face)]
    with torch.device("meta"):
        assert draw_pictures(pictures).device.type == "meta"
        assert keypoint_map(faces).device.type == "meta"
