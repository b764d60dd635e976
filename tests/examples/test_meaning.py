"""Each family changes a model as its paper describes."""

import copy
from typing import Any

import control_lora
import controlnet
import distilled
import few_steps
import inpainting_head
import instant_id
import ip_adapter
import language_model
import lora
import motion
import pytest
import restart
import style_aligned
import t2i_adapter
import text_encoder
import textual_inversion
import torch
from refiners_freeu.adapter import FreeU
from refiners_guidance.perturbed_attention import PerturbedAttention
from refiners_guidance.self_attention import SelfAttentionGuidance
from refiners_iclight.adapter import ForegroundLight
from refiners_regional.tiled import MultiDiffusion
from torch import Tensor, nn

from refiners_core import Chain, Condition, Context
from refiners_core.errors import ConditionError, ModelError
from refiners_core.models.samplers import DDIM, LCM
from refiners_core.testing import generated, tiny_model
from refiners_core.testing.case import bits

from .test_contract import PICTURE


@pytest.fixture
def model() -> Any:
    return tiny_model()


def rows(model: Any, count: int = 2, side: int = 8) -> Tensor:
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(5))


def unet_context(adapter: Any = None, scale: float = 1.0, **values: Tensor) -> dict[str, Any]:
    """Returns the context of a call of the UNet, in which an adapter is active."""
    context = {"timestep": torch.tensor(500), "text": torch.ones(2, 5, 8), "branches": ("cond",)}
    if adapter is not None:
        context[adapter.scale_key] = torch.tensor(scale)
        context |= {adapter.context_key(name): value for name, value in values.items()}
    return context


def generate(model: Any, **options: Any) -> Tensor:
    defaults = {"steps": 3, "guidance": 3.0, "seed": 7, "output": "latents", "progress": False}
    return model.generate(**{"prompt": "a red circle", **defaults, **options})


class Count:
    """Records the number of rows in each call of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.rows: list[int] = []
        layer.register_forward_hook(self)

    def __call__(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self.rows.append(len(inputs[0]))


def close(a: Tensor, b: Tensor, by: float = 1e-5) -> bool:
    return float((a - b).abs().max()) <= by * max(1.0, float(b.abs().max()))


# --- LoRA, LoHa, LoKr, DoRA ------------------------------------------------------------------

KINDS = (lora.LoraChange, lora.LohaChange, lora.LokrChange, lora.DoraChange)


@torch.no_grad()
def with_changed_weights(model: Any, adapter: lora.LowRank, scale: float) -> Any:
    twin = copy.deepcopy(model)
    for name, change in adapter.own_layers.named_children():
        layer: Any = twin.layer(name.replace("/", "."))
        moved = layer.weight + change.change()
        if isinstance(change, lora.DoraChange):
            moved = change.gain.view(-1, *[1] * (moved.ndim - 1)) * moved
        layer.weight.copy_((1 - scale) * layer.weight + scale * moved)
    return twin


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_change_beside_a_layer_equals_a_change_of_its_weight(model, kind):
    adapter = lora.LowRank(kind).inject(model)
    for scale in (1.0, 0.4):
        twin = with_changed_weights(model, adapter, scale)
        worn = model.unet(rows(model), context=unet_context(adapter, scale))
        assert close(worn, twin.unet(rows(model), context=unet_context()))


@torch.no_grad()
def test_changes_are_merged_and_unmerged_bit_for_bit(model):
    before, changes = bits(list(model.parameters())), lora.LowRank(key="lora").inject(model)
    beside = model.unet(rows(model), context=unet_context(changes))
    changes.eject()
    merged = lora.Merged(changes, key="merged").inject(model)
    assert close(model.unet(rows(model), context=unet_context()), beside)
    on_top = lora.LowRank(key="another").inject(model)
    assert not close(model.unet(rows(model), context=unet_context(on_top)), beside)
    merged.eject()
    on_top.eject()
    assert bits(list(model.parameters())) == before


@torch.no_grad()
def test_several_low_rank_changes_add_up(model):
    a, b = (lora.LowRank(key=key).inject(model) for key in "ab")
    twin = with_changed_weights(with_changed_weights(model, a, 1.0), b, 0.5)
    context = unet_context(a) | {b.scale_key: torch.tensor(0.5)}
    assert close(
        model.unet(rows(model), context=context), twin.unet(rows(model), context=unet_context())
    )


def test_a_low_rank_change_reaches_the_text_encoder(model):
    adapter = lora.LowRank().inject(model)
    context = {adapter.scale_key: torch.tensor(1.0)}
    assert not torch.equal(model.read(["cat"], context)["text"], model.read(["cat"], {})["text"])


# --- side networks ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [controlnet.ControlNet, control_lora.ControlLora])
def test_a_side_network_runs_once_a_step_and_not_while_it_is_skipped(model, kind):
    adapter = kind().inject(model)
    side = model.unet.layer(f"input+control@{adapter.key}", Chain).layer("When_0.network", Chain)
    count = Count(side.mid if hasattr(side, "mid") else side)
    generate(model, conditions={adapter: Condition(PICTURE, end=0.7)})
    assert count.rows == [2, 2]  # of three steps; both branches at once
    generate(model, conditions={adapter: None})
    assert len(count.rows) == 2


@torch.no_grad()
def test_outputs_of_a_side_network_are_added_where_skips_are_written(model):
    adapter = controlnet.ControlNet().inject(model)
    features = controlnet.squeezed(PICTURE, 8)
    worn = Context(unet_context(adapter, features=features.expand(2, -1, -1, -1)))
    model.unet(rows(model), context=worn)
    bare = Context(unet_context())
    adapter.eject()
    model.unet(rows(model), context=bare)
    added = worn[adapter.context_key("skip.0")]
    assert close(worn["unet.skip.0"], bare["unet.skip.0"] + added)


@torch.no_grad()
def test_the_controlnet_of_instantid_reads_the_face_instead_of_the_text(model):
    adapter = instant_id.InstantId().inject(model)
    network = adapter.control.side
    values = {"features": controlnet.squeezed(PICTURE, 8).expand(2, -1, -1, -1)}

    def outputs(tokens: Tensor, words: Tensor) -> Any:
        context = unet_context(adapter, tokens=tokens, **values) | {"text": words}
        return bits(network(rows(model), context=context))

    face, other, words = torch.ones(2, 3, 8), torch.zeros(2, 3, 8), torch.ones(2, 5, 8)
    assert outputs(face, words) == outputs(face, -words)
    assert outputs(face, words) != outputs(other, words)


@torch.no_grad()
def test_a_control_lora_shares_the_weights_of_the_base_but_not_its_edits(model):
    adapter = control_lora.ControlLora().inject(model)
    path = f"input+control@{adapter.key}.When_0.network"
    shared = {id(w) for w in model.unet.down.parameters()} & {
        id(w) for w in model.unet.layer(path, Chain).down.parameters()
    }
    assert len(shared) == len(list(model.unet.down.parameters()))
    context = unet_context(adapter, features=controlnet.squeezed(PICTURE, 8).expand(2, -1, -1, -1))
    alone = bits(model.unet.layer(path, Chain)(rows(model), context=context))
    other = lora.LowRank().inject(model)
    again = model.unet.layer(path, Chain)(rows(model), context=context | unet_context(other))
    assert bits(again) == alone


def test_features_of_a_t2i_adapter_are_computed_once_per_generation(model):
    adapter = t2i_adapter.T2iAdapter().inject(model)
    generate(model, conditions={adapter: PICTURE}, steps=4)
    assert adapter.encoded == 1


# --- image prompts ---------------------------------------------------------------------------


@torch.no_grad()
def test_a_mask_limits_an_image_prompt_to_a_part_of_the_picture(model):
    adapter = ip_adapter.ImagePrompt().inject(model)
    seat = model.slot("unet.cross_attention.attend")[0]
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    request = type("Request", (), {"mask": left, "latent_height": 8, "latent_width": 8})
    request.dtype = torch.float32
    values = {k: v["cond"] for k, v in adapter.encode(PICTURE, request).items()}
    q, k, v = (torch.randn(1, n, 8) for n in (64, 5, 5))
    worn = seat.chain.at("attend")
    prompted = worn(q, k, v, context={**values, adapter.scale_key: torch.tensor(1.0)})
    change = (prompted - worn(q, k, v)).view(8, 8, 8)
    assert change[:, :4].abs().amin() > 0
    assert change[:, 4:].abs().amax() == 0


def test_image_prompts_add_up_and_each_has_a_scale(model):
    a, b = (ip_adapter.ImagePrompt(key=key).inject(model) for key in "ab")
    results = {
        bits(generate(model, conditions={a: x, b: y}))
        for x in (None, PICTURE, Condition(PICTURE, scale=0.5))
        for y in (None, 1 - PICTURE)
    }
    assert len(results) == 6


def test_a_missing_input_is_refused_before_any_network_runs(model):
    adapter = instant_id.InstantId().inject(model)
    counts = [Count(layer) for layer in (model.text_encoder, model.unet, adapter.project)]
    for value in ({"face": PICTURE}, PICTURE, {}):
        with pytest.raises(ConditionError, match=r"instantid.* needs .*keypoints"):
            generate(model, conditions={adapter: value})
    assert not any(count.rows for count in counts)


# --- attention across pictures and passes ----------------------------------------------------


@pytest.mark.parametrize(
    ("make", "condition"),
    [
        (style_aligned.StyleAligned, None),
        (PerturbedAttention, None),
        (SelfAttentionGuidance, None),
        (motion.Motion, None),
        (controlnet.ControlNet, PICTURE),
    ],
)
def test_sequential_branches_equal_batched_branches(model, make, condition):
    adapter = make().inject(model)
    conditions = {adapter: Condition(condition)}
    together = generate(model, count=2, conditions=conditions)
    alone = generate(model, count=2, conditions=conditions, sequential=True)
    assert close(alone, together, by=1e-4)


def test_style_aligned_lets_other_pictures_attend_to_the_first(model):
    bare = generate(model, count=3)
    adapter = style_aligned.StyleAligned().inject(model)
    shared = generate(model, count=3)
    assert close(shared[0], bare[0], by=1e-3)  # repeated keys leave attention unchanged
    assert not close(shared[1], bare[1], by=1e-3)
    adapter.eject()


# --- skips -----------------------------------------------------------------------------------


def test_freeu_changes_skips_and_backbone_alone(model):
    adapter = FreeU(b1=1, b2=1, s1=1, s2=1).inject(model)
    bare = generate(model, conditions={adapter: None})
    assert close(generate(model), bare, by=1e-4)
    adapter.eject()
    strong = FreeU(b1=1.8, b2=1.8, s1=0.1, s2=0.1).inject(model)
    assert not close(generate(model), bare, by=1e-2)
    assert {seat.name for edit in strong.edits(model) for seat in edit.seats} == {
        "backbone",
        "record",
    }


# --- sampling --------------------------------------------------------------------------------


def test_perturbed_attention_is_a_third_branch(model):
    adapter = PerturbedAttention().inject(model)
    count = Count(model.unet)
    generate(model)
    generate(model, guidance=1.0)
    generate(model, conditions={adapter: None})
    assert count.rows == [3] * 3 + [2] * 3 + [2] * 3


def test_self_attention_guidance_runs_the_unguided_branch_again(model):
    SelfAttentionGuidance().inject(model)
    count = Count(model.unet)
    generate(model)
    assert count.rows == [2, 1] * 3


def test_tiles_cover_a_picture_and_one_tile_changes_nothing(model):
    bare = generate(model)
    whole = MultiDiffusion(window=32).inject(model)
    assert close(generate(model), bare)
    whole.eject()
    MultiDiffusion(window=16, stride=12).inject(model)
    count = Count(model.unet)
    generate(model, steps=1)
    assert len(count.rows) == 9


@torch.no_grad()
def test_restart_returns_to_more_noise_once(model):
    sampler = restart.Restart(model.sampler.schedule, at=2).with_steps(4)
    plain = DDIM(model.sampler.schedule).with_steps(4)
    noises = [level.noise for level in sampler.path]
    assert noises == [level.noise for i in (0, 1, 0, 1, 2, 3, 4) for level in [plain.path[i]]]
    assert generate(model, sampler=sampler, steps=4).shape == (1, 4, 8, 8)
    clean, eps, again = (torch.randn(1, 4, 8, 8) for _ in range(3))
    x = sampler.path[1].add_noise(clean, eps)
    prediction = model.sampler.schedule.target(clean, eps, int(sampler.path[1].timestep))
    latents = sampler.step(x, prediction, 1, noise=again).latents
    high = sampler.path[2]
    ratio = (latents - high.signal * clean).std() / high.noise
    assert 0.8 < float(ratio) < 1.2  # the noise of the higher level


def test_a_distilled_model_reads_its_guidance_and_runs_one_branch(model):
    adapter = distilled.Distilled().inject(model)
    count = Count(model.unet)
    options = {"sampler": LCM(model.sampler.schedule), "steps": 2}
    a, b = (generate(model, guidance=guidance, **options) for guidance in (3.0, 8.0))
    assert count.rows == [1] * 4
    assert not torch.equal(a, b)
    adapter.eject()


def test_a_few_step_adapter_brings_its_sampler_steps_and_guidance(model):
    adapter = few_steps.FewSteps().inject(model)
    count = Count(model.unet)
    brought = generate(model, steps=None, guidance=None, seed=3)
    assert count.rows == [1] * 4
    advice = {"sampler": "lcm", "steps": 4, "guidance": 1.0}
    assert brought.equal(generate(model, **advice, seed=3))
    adapter.eject()
    assert not brought.equal(generate(model, **advice, seed=3))


# --- texts -----------------------------------------------------------------------------------


@torch.no_grad()
def test_new_words_have_their_own_embeddings(model):
    a = textual_inversion.TextualInversion("<cat>", count=2, key="a").inject(model)
    b = textual_inversion.TextualInversion("<hat>", count=1, key="b").inject(model)
    acting = {adapter.scale_key: torch.tensor(1.0) for adapter in (a, b)}
    embedded: list[Tensor] = []
    model.text_encoder.embed.register_forward_hook(lambda *args: embedded.append(args[2][0]))
    model.read(["<cat>,<hat>"], acting)
    new = [next(adapter.own_layers.parameters()) for adapter in (a, b)]
    embed = model.text_encoder.embed
    table, positions = embed.token.weight, embed.position.weight
    comma = table[model.tokenizer.tokens(",")[0]]
    words = torch.stack([new[0][0], new[0][1], comma, new[1][0]])
    assert torch.equal(embedded[0][1:5], words + positions[1:5])
    model.read(["<cat>,<hat>"], {b.scale_key: torch.tensor(1.0)})  # <cat> is inactive: spelt out
    assert not torch.equal(embedded[1][1:5], words + positions[1:5])


def test_a_word_is_one_token_while_its_adapter_acts(model):
    spelt = generate(model, prompt="a <cat>")
    adapter = textual_inversion.TextualInversion().inject(model)
    assert not torch.equal(generate(model, prompt="a <cat>"), spelt)
    assert torch.equal(generate(model, prompt="a <cat>", conditions={adapter: None}), spelt)
    other = textual_inversion.TextualInversion().inject(model)
    with pytest.raises(ModelError, match="brings '<cat>', which another adapter brings as well"):
        generate(model, prompt="a <cat>")
    other.eject()
    adapter.eject()
    assert torch.equal(generate(model, prompt="a <cat>"), spelt)


def test_another_text_encoder_replaces_the_bases(model):
    bare = generate(model)
    adapter = text_encoder.TextEncoder().inject(model)
    other = generate(model)
    assert not torch.equal(other, bare)
    assert isinstance(model.at("text_encoder"), Chain)
    adapter.eject()
    assert torch.equal(generate(model), bare)


# --- inputs, layers, axes --------------------------------------------------------------------


@torch.no_grad()
def test_a_wider_first_convolution_replaces_the_bases(model):
    head = inpainting_head.InpaintingHead(key="head").inject(model)
    a, b = (generate(model, conditions={head: picture}) for picture in (PICTURE, 1 - PICTURE))
    assert not torch.equal(a, b)
    conv: Any = head.own_layers.get_submodule("unet/conv_in")
    assert conv.in_channels == 9
    light = ForegroundLight(key="light").inject(model)  # beside the replaced convolution
    assert generate(model, conditions={head: PICTURE, light: PICTURE}).isfinite().all()


def test_new_layers_between_blocks_let_frames_attend_to_each_other(model):
    bare = generate(model, count=3)
    motion.Motion().inject(model)
    moving = generate(model, count=3)
    still = generate(model, count=1)
    assert not close(moving[0], still[0], by=1e-3)  # a single frame attends to itself alone
    assert not close(moving[1], bare[1], by=1e-3)


# --- language models -------------------------------------------------------------------------


def read(model: Any, words: torch.Tensor, **options: Any) -> torch.Tensor:
    """Returns the log probability of each word after the first."""
    return model.score(words, **options).log_probabilities


@torch.no_grad()
@pytest.mark.parametrize("make", language_model.ADAPTERS)
def test_adapters_of_a_language_model_do_not_look_ahead(make):
    model, words = language_model.language_model(), torch.arange(8)
    bare = read(model, words)
    adapter = make().inject(model)
    worn, other = read(model, words), words.clone()
    other[-1] = 15
    assert not close(worn, bare, by=1e-3)
    assert torch.allclose(read(model, other)[:-1], worn[:-1], atol=1e-6)
    assert torch.equal(read(model, words, conditions={adapter: None}), bare)


@torch.no_grad()
@pytest.mark.parametrize("make", language_model.ADAPTERS)
def test_adapters_of_a_language_model_write_with_a_cache_what_they_write_without(make):
    model, rows = language_model.language_model(), [torch.arange(3), torch.arange(6)]
    make().inject(model)
    for row, result in zip(
        rows, model.generate(rows, max_new_tokens=5, output="scores"), strict=True
    ):
        text = torch.cat([row, result.tokens])
        assert torch.allclose(read(model, text)[-5:], result.log_probabilities, atol=1e-4)


@torch.no_grad()
def test_rescaling_keys_and_values_equals_rescaling_weights():
    model, words = language_model.language_model(), torch.arange(8)
    adapter = language_model.Ia3().inject(model)
    worn = read(model, words)
    adapter.eject()
    for seat in model.slot("decoder.linear").named("to_k", "to_v", "value"):
        by = adapter.own_layers.get_submodule(seat.path.replace(".", "/")).by
        seat.layer.weight.mul_(by[:, None])
    assert close(read(model, words), worn)


def test_the_contracts_run_generates_small_latents(model):
    assert generated(model, {}).shape == (2, 4, 8, 8)
