"""Bottleneck adapters equal the formulas of the papers on networks of transformers.

The formulas, the places and the names are those of AdapterHub (adapters 1.3.0), whose package needs
an older transformers than the other peers: they were compared with it once.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

import refiners_core
from refiners_core import compose

from . import decoder_peer
from .decoder_peer import WORDS, sampled

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2")
WIDTH, LAYERS = 32, 3
IDS = torch.randint(0, WORDS, (2, 9), generator=torch.Generator().manual_seed(1))
DEFAULTS: Mapping[str, Any] = {
    "mh_adapter": False, "output_adapter": True, "reduction_factor": 4, "non_linearity": "relu",
    "original_ln_before": False, "original_ln_after": True, "ln_before": False, "ln_after": False,
    "is_parallel": False, "scaling": 1.0, "use_gating": False, "residual_before_ln": True,
    "adapter_residual_before_ln": False, "leave_out": [], "inv_adapter": None, "phm_layer": False,
    "phm_dim": 4, "phm_rank": 1, "phm_bias": True, "factorized_phm_W": True, "shared_W_phm": False,
    "shared_phm_rule": True, "factorized_phm_rule": False, "init_weights": "bert", "dropout": 0.1,
}  # fmt: skip
SEQUENTIAL = {"original_ln_before": True}
DOUBLE = {"mh_adapter": True, "non_linearity": "swish"}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "seq_bn": SEQUENTIAL,
    "double_seq_bn": {**DOUBLE, "reduction_factor": {"1": 2, "default": 8}},
    "par_bn": {"is_parallel": True, "scaling": 4.0, "reduction_factor": 2},
    "scaled_par_bn": {"is_parallel": True, "scaling": "learned", "mh_adapter": True},
    "compacter": {**DOUBLE, "phm_layer": True, "non_linearity": "gelu"},
    "compacter++": {
        **SEQUENTIAL, "phm_layer": True, "phm_rank": 2, "shared_phm_rule": False,
        "factorized_phm_rule": True, "non_linearity": "gelu",
    },
    "compacter, all shared": {**DOUBLE, "phm_layer": True, "shared_W_phm": True, "phm_dim": 2},
    "norms and a gate": {
        **SEQUENTIAL, "ln_before": True, "ln_after": True, "use_gating": True,
        "adapter_residual_before_ln": True, "scaling": "channel", "non_linearity": "prelu",
    },
    "residual after": {
        **SEQUENTIAL, "residual_before_ln": False, "ln_after": True, "leave_out": [1],
        "non_linearity": "leakyrelu", "mh_adapter": True,
    },
}  # fmt: skip
ALONE: Mapping[str, Mapping[str, Any]] = {
    "adapter_plus": {
        **SEQUENTIAL, "original_ln_after": False, "residual_before_ln": False,
        "scaling": "channel", "non_linearity": "gelu_new", "leave_out": [0],
    },
    "without the residual": {"original_ln_after": False, "mh_adapter": True, "ln_after": True},
    "parallel without the residual": {"is_parallel": True, "original_ln_after": False},
}  # fmt: skip
"""Configurations that AdapterHub refuses for families that it reaches by hooks alone."""
ACTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "swish": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "gelu_new": lambda x: x * torch.sigmoid(1.5957691216 * (x + 0.044715 * x**3)),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
}


def random_weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns tensors under AdapterHub's names, less the beginning of the model."""
    noise = torch.Generator().manual_seed(3)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        if name not in weights:
            weights[name] = torch.randn(shape, generator=noise) * 0.2 + around

    for layer in range(LAYERS):
        for place in ("mh", "output"):
            if not config[f"{place}_adapter"] or layer in config["leave_out"]:
                continue
            kind = "attention" if place == "mh" else "output"
            start = f"{layer}.{kind}_adapters.adapters.x."
            factor = config["reduction_factor"]
            if isinstance(factor, dict):
                factor = factor.get(str(layer), factor["default"])
            size, first = int(WIDTH // factor), int(config["ln_before"])
            sides = ((f"adapter_down.{first}", "down", WIDTH, size),
                     ("adapter_up", "up", size, WIDTH))  # fmt: skip
            for name, side, inside, outside in sides:
                if not config["phm_layer"]:
                    add(f"{start}{name}.weight", outside, inside)
                    add(f"{start}{name}.bias", outside)
                    continue
                n, rank = config["phm_dim"], config["phm_rank"]
                rule = "shared." if config["shared_phm_rule"] else f"{start}{name}."
                if config["factorized_phm_rule"]:
                    add(f"{rule}phm_rule_left", n, n, 1, around=1.0)
                    add(f"{rule}phm_rule_right", n, 1, n, around=1.0)
                else:
                    add(f"{rule}phm_rule", n, n, n)
                w = f"shared.W_{side}" if config["shared_W_phm"] else f"{start}{name}.W"
                add(f"{w}_left", n, inside // n, rank, around=1.0)
                add(f"{w}_right", n, rank, outside // n)
                add(f"{start}{name}.b", outside)
            if config["ln_before"]:
                for name in ("adapter_norm_before", "adapter_down.0"):  # one layer, two names
                    for part in ("weight", "bias"):
                        known = f"{start}adapter_norm_before.{part}"
                        add(known, WIDTH, around=float(part == "weight"))
                        weights[f"{start}{name}.{part}"] = weights[known].clone()
            if config["ln_after"]:
                add(f"{start}adapter_norm_after.weight", WIDTH, around=1.0)
                add(f"{start}adapter_norm_after.bias", WIDTH)
            if config["use_gating"]:
                add(f"{start}gate.weight", 1, WIDTH)
                add(f"{start}gate.bias", 1)
            if isinstance(config["scaling"], str):
                add(f"{start}scaling", 1 if config["scaling"] == "learned" else WIDTH, around=1.0)
            if config["non_linearity"] == "prelu":
                add(f"{start}adapter_down.{first + 1}.f.weight", 1)
    return weights


def write_folder(
    folder: Path, kind: str, weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Path:
    """Writes a folder as AdapterHub does."""
    family = "llama" if kind.startswith("llama") else kind
    root, blocks = ("transformer", "h") if kind == "gpt2" else ("model", "layers")
    names = {
        key: f"{root}.shared_parameters.x.{key[7:]}"
        if key.startswith("shared.")
        else f"{root}.{blocks}.{key}"
        for key in weights
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({names[key]: value for key, value in weights.items()}, folder / "adapter.safetensors")
    about = {"config": dict(config), "hidden_size": WIDTH, "model_type": family, "name": "x"}
    about |= {"version": "adapters.1.3.0", "model_name": "org/tiny", "model_class": "Tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder


def projected(config: Mapping[str, Any], weights: Mapping[str, Tensor], at: str, side: str,
              x: Tensor) -> Tensor:  # fmt: skip
    """Returns `W x + b`, with `W` a sum of Kronecker products for a Compacter."""
    if not config["phm_layer"]:
        return x @ weights[f"{at}.weight"].T + weights[f"{at}.bias"]
    rule_at = "shared." if config["shared_phm_rule"] else f"{at}."
    if config["factorized_phm_rule"]:
        rule = weights[f"{rule_at}phm_rule_left"] @ weights[f"{rule_at}phm_rule_right"]
    else:
        rule = weights[f"{rule_at}phm_rule"]
    w_at = f"shared.W_{side}" if config["shared_W_phm"] else f"{at}.W"
    w = weights[f"{w_at}_left"] @ weights[f"{w_at}_right"]
    products = [torch.kron(a.contiguous(), b.contiguous()) for a, b in zip(rule, w, strict=True)]
    return x @ torch.stack(products).sum(0) + weights[f"{at}.b"]


def adapted(config: Mapping[str, Any], weights: Mapping[str, Tensor], start: str, x: Tensor,
            h: Tensor, norm: Callable[[Tensor], Tensor] | None) -> Tensor:  # fmt: skip
    """Returns what takes the place of `h`, the output of a layer that starts from `x`."""
    z, residual = h, h
    if config["is_parallel"]:
        z = x
    elif config["original_ln_before"]:
        z = x + h if norm is None else norm(x + h)
    if not config["is_parallel"] and not config["residual_before_ln"]:
        residual = z
    first = int(config["ln_before"])
    y = z
    if config["ln_before"]:
        norm_at = f"{start}adapter_norm_before"
        y = functional.layer_norm(
            y, (WIDTH,), weights[f"{norm_at}.weight"], weights[f"{norm_at}.bias"]
        )
    y = projected(config, weights, f"{start}adapter_down.{first}", "down", y)
    if config["non_linearity"] == "prelu":
        y = torch.where(y > 0, y, weights[f"{start}adapter_down.{first + 1}.f.weight"] * y)
    else:
        y = ACTS[config["non_linearity"]](y)
    y = projected(config, weights, f"{start}adapter_up", "up", y)
    scaling = config["scaling"]
    y = y * (weights[f"{start}scaling"] if isinstance(scaling, str) else scaling)
    if config["use_gating"]:
        gate = z @ weights[f"{start}gate.weight"].T + weights[f"{start}gate.bias"]
        y = y * torch.sigmoid(gate).mean(1, keepdim=True)
    is_before = config["adapter_residual_before_ln"] and not config["is_parallel"]
    if is_before:
        y = y + residual
    if config["ln_after"]:
        norm_at = f"{start}adapter_norm_after"
        y = functional.layer_norm(
            y, (WIDTH,), weights[f"{norm_at}.weight"], weights[f"{norm_at}.bias"]
        )
    y = y if is_before else y + residual
    return y if config["original_ln_after"] else y - x  # the network adds x in any case


def expected(
    peer: Any, kind: str, config: Mapping[str, Any], formula: Callable[..., Tensor]
) -> Tensor:
    """Returns the logits of a peer with a formula behind its layers, where a configuration acts."""
    blocks = peer.transformer.h if kind == "gpt2" else peer.model.layers
    hooks: list[Any] = []
    for layer, block in enumerate(blocks):
        for place in ("attention", "output"):
            flag = "mh_adapter" if place == "attention" else "output_adapter"
            if not config[flag] or layer in config["leave_out"]:
                continue
            is_first = place == "attention"
            norm: Callable[[Tensor], Tensor] | None = None
            if kind == "gpt2":
                starts, ends = (block.ln_1, block.attn) if is_first else (block.ln_2, block.mlp)
            elif kind == "gemma2":
                starts = block.input_layernorm if is_first else block.pre_feedforward_layernorm
                ends = block.self_attn.o_proj if is_first else block.mlp.down_proj
                last = blocks[-1]
                norm = last.post_attention_layernorm if is_first else (
                    last.post_feedforward_layernorm
                )  # fmt: skip
            else:
                starts = block.input_layernorm if is_first else block.post_attention_layernorm
                ends = block.self_attn if is_first else block.mlp
            stream: list[Tensor] = []
            start = f"{layer}.{place}_adapters.adapters.x."

            def keep(_: Any, inputs: Any, stream: Any = stream) -> None:
                stream[:] = [inputs[0]]

            def change(
                _: Any, inputs: Any, output: Any, stream: Any = stream, start: Any = start,
                norm: Any = norm,
            ) -> Any:  # fmt: skip
                h = output[0] if isinstance(output, tuple) else output
                y = formula(start, stream[0], h, norm)
                return (y, *output[1:]) if isinstance(output, tuple) else y

            hooks += [starts.register_forward_pre_hook(keep), ends.register_forward_hook(change)]
    logits = peer(IDS).logits
    for hook in hooks:
        hook.remove()
    return logits


@pytest.fixture(scope="module", params=sampled(FAMILIES))
def pair(request: Any, tmp_path_factory: Any) -> tuple[str, Any, Any, Path]:
    """Returns a family, a peer, the same model of ours, and a folder."""
    folder = tmp_path_factory.mktemp(request.param)
    peer = decoder_peer.peer_of(request.param)
    model = refiners.load_model(str(decoder_peer.publish(peer, folder / "model")))
    return request.param, peer, model, folder


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def logits(model: Any) -> Tensor:
    scales = {adapter.scale_key: torch.tensor(1.0) for adapter in model.adapters}
    return model.decoder(IDS, context=scales)


@pytest.mark.parametrize("name", [*CONFIGS, *ALONE])
@torch.no_grad()
def test_each_configuration_is_its_formula(pair: Any, name: str):
    kind, peer, model, folder = pair
    if name in ALONE and kind not in ("llama", "gpt2"):
        return
    config = {**DEFAULTS, **{**CONFIGS, **ALONE}[name]}
    weights = random_weights(config)
    path = write_folder(folder / name.replace(" ", "-"), kind, weights, config)
    bare = logits(model)
    adapter = refiners.load_adapter(str(path), model)
    theirs = expected(peer, kind, config, partial(adapted, config, weights))
    assert error(bare, theirs) > 1e-2
    assert error(logits(model), theirs) <= 1e-5
    adapter.eject()
    assert torch.equal(logits(model), bare)


@torch.no_grad()
def test_stacked_adapters_read_one_another_and_averaged_ones_do_not(pair: Any):
    kind, peer, model, folder = pair
    config = {**DEFAULTS, **SEQUENTIAL, "mh_adapter": True}
    other = {**config, "non_linearity": "swish", "reduction_factor": 8}
    first, second = random_weights(config), random_weights(other)
    a, b = (
        refiners.load_adapter(str(write_folder(folder / name, kind, weights, of)))
        for name, weights, of in (("first", first, config), ("second", second, other))
    )
    first_of, second_of = partial(adapted, config, first), partial(adapted, other, second)

    def stacked(start: str, x: Tensor, h: Tensor, norm: Any) -> Tensor:
        return second_of(start, x, first_of(start, x, h, norm), norm)

    def averaged(*place: Any) -> Tensor:
        return 0.3 * first_of(*place) + 0.7 * second_of(*place)

    theirs = expected(peer, kind, config, stacked)
    with compose.stack(a, b).on(model):
        assert error(logits(model), theirs) <= 1e-5
    with compose.stack(b, a).on(model):
        assert error(logits(model), theirs) > 1e-3
    with compose.average(b, a, weights=[7, 3]).on(model):
        assert error(logits(model), expected(peer, kind, config, averaged)) <= 1e-5


@torch.no_grad()
def test_a_fusion_attends_over_what_its_adapters_add(pair: Any):
    kind, peer, model, folder = pair
    config = {**DEFAULTS, **SEQUENTIAL}
    other = {**config, "non_linearity": "swish", "reduction_factor": 8}
    parts = [(config, random_weights(config)), (other, random_weights(other))]
    adapters = [
        refiners.load_adapter(str(write_folder(folder / f"part-{i}", kind, weights, of)))
        for i, (of, weights) in enumerate(parts)
    ]
    noise = torch.Generator().manual_seed(5)
    shapes = {"query.weight": (WIDTH, WIDTH), "query.bias": (WIDTH,), "key.weight": (WIDTH, WIDTH),
              "key.bias": (WIDTH,), "value.weight": (WIDTH, WIDTH)}  # fmt: skip
    fusion = {
        f"{layer}.output_adapters.adapter_fusion_layer.x,y.{name}": torch.randn(
            shape, generator=noise
        )
        * 0.1
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }
    path = write_folder(folder / "fusion", kind, fusion, {})
    (path / "adapter.safetensors").rename(path / "model_adapter_fusion.safetensors")
    about = json.loads((path / "adapter_config.json").read_text())
    about |= {"name": "x,y", "config": {"temperature": False, "regularization": True}}
    (path / "adapter_config.json").unlink()
    (path / "adapter_fusion_config.json").write_text(json.dumps(about))

    def fused(start: str, x: Tensor, h: Tensor, norm: Any) -> Tensor:
        at = f"{start.split('.')[0]}.output_adapters.adapter_fusion_layer.x,y."
        query = x + h if norm is None else norm(x + h)
        added = [adapted(of, weights, start, x, h, norm) - h for of, weights in parts]
        keys = [y @ fusion[f"{at}key.weight"].T + fusion[f"{at}key.bias"] for y in added]
        values = [y @ fusion[f"{at}value.weight"].T for y in added]
        queried = query @ fusion[f"{at}query.weight"].T + fusion[f"{at}query.bias"]
        shares = torch.stack([(queried * key).sum(-1) for key in keys]).softmax(0)
        return h + sum(share[..., None] * v for share, v in zip(shares, values, strict=True))

    bare, theirs = logits(model), expected(peer, kind, config, fused)
    with pytest.warns(refiners_core.errors.Notice, match="fuses x, y; it got x, x"):
        worn = refiners.load_adapter(str(path), model, adapters=adapters)
    assert error(logits(model), theirs) <= 1e-5
    assert error(bare, theirs) > 1e-2
    worn.eject()
    assert torch.equal(logits(model), bare)
