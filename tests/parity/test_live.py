"""State of a loaded pipeline beside its tensors: read, harmless, or refused by name."""

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

from refiners_core.errors import ModelError
from refiners_core.models.formats.pipeline import from_pipeline, to_diffusers

from .pipelines import sd15_pipeline, sdxl_pipeline, tokenizer

NOISE = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def difference(pipe):
    ours = from_pipeline(pipe)
    arguments = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "latent"}
    theirs = pipe("a red circle", latents=NOISE, **arguments).images
    made = ours.generate(
        "a red circle", latents=NOISE, steps=2, guidance=5.0, output="latents", progress=False
    )
    return float((made - theirs).norm() / theirs.norm())


def compiled(pipe):
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def compiled_block(pipe):
    pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")


def parallel(pipe):
    pipe.text_encoder = torch.nn.DataParallel(pipe.text_encoder)
    pipe.text_encoder.config = pipe.text_encoder.module.config


def sliced(pipe):
    pipe.enable_attention_slicing(1)
    pipe.vae.enable_slicing()


def fused(pipe):
    pipe.fuse_qkv_projections()


@pytest.mark.parametrize("change", [compiled_block, sliced, fused])
def test_harmless_state_is_ignored(change):
    pipe = sd15_pipeline()
    change(pipe)
    assert difference(pipe) < 1e-5


@pytest.mark.parametrize("change", [compiled, parallel])
def test_wrapped_parts_are_unwrapped(change):
    pipe = sd15_pipeline()
    wanted = pipe.unet.conv_in.weight, pipe.text_encoder.state_dict(keep_vars=True)
    change(pipe)
    ours = from_pipeline(pipe)
    assert ours.unet.conv_in.weight.data_ptr() == wanted[0].data_ptr()
    assert len(ours.text_encoder.state_dict()) == len(wanted[1])


def freeu(pipe):
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.4, b2=1.6)


def fused_and_trained(pipe):
    pipe.fuse_qkv_projections()
    with torch.no_grad():
        next(it for name, it in pipe.unet.named_parameters() if "to_qkv" in name).add_(1)


def inverted(pipe):
    pipe.tokenizer.add_tokens("<cat>")
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))


def quantised(pipe):
    torch.ao.quantization.quantize_dynamic(pipe.unet, {torch.nn.Linear}, inplace=True)


def attending(pipe):
    pipe.unet.set_attn_processor(PAGIdentitySelfAttnProcessor2_0())


def hooked(pipe):
    pipe.unet.conv_out.register_forward_hook(lambda layer, inputs, output: output * 2)


def patched(pipe):
    pipe.vae.decoder.forward = lambda z, *_: z


def circular(pipe):
    pipe.unet.conv_in.padding_mode = "circular"


def narrow(pipe):
    pipe.text_encoder.to(torch.float8_e4m3fn)


def layerwise(pipe):
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)


def another_vae(pipe):
    pipe.vae = diffusers.AutoencoderTiny()


def latents_normalised(pipe):
    pipe.vae.register_to_config(latents_mean=[0.0] * 4)


@pytest.mark.parametrize(
    ("change", "named", "hint"),
    [
        (freeu, "unet.up_blocks.0 of this pipeline has FreeU on", "pipe.disable_freeu()"),
        (fused_and_trained, "fused projections that differ from their parts", "unfuse_qkv"),
        (inverted, "words that were added to its vocabulary: <cat>", "unload_textual_inversion"),
        (quantised, "is a layer of torch.ao.nn.quantized.*Linear, which is quantised", "Load the"),
        (
            attending,
            "has the attention processor PAGIdentitySelfAttnProcessor2_0",
            "set_default_attn_processor",
        ),
        (hooked, r"unet.conv_out of this pipeline has a hook on its calls \(hooked", "remove()"),
        (patched, r"vae.decoder of this pipeline has another forward\(\)", "Undo the patch"),
        (circular, "unet.conv_in of this pipeline pads feature maps with 'circular'", "zeros"),
        (narrow, "text_encoder.* has weights of torch.float8_e4m3fn", "pipe.text_encoder.to("),
        (layerwise, r"hooks of diffusers \(layerwise_casting\)", "without them"),
        (another_vae, "is of AutoencoderTiny, not of AutoencoderKL", "Give a model"),
        (latents_normalised, "has latents_mean = ", "other classes"),
    ],
)
def test_state_that_changes_results_is_refused_by_name(change, named, hint):
    pipe = sd15_pipeline()
    change(pipe)
    with pytest.raises(ModelError, match=named) as error:
        from_pipeline(pipe)
    assert hint in error.value.hint


def test_freeu_off_again_is_read():
    pipe = sd15_pipeline()
    freeu(pipe)
    pipe.disable_freeu()
    assert difference(pipe) < 1e-5


def test_tiling_of_the_autoencoder_is_read():
    pipe = sd15_pipeline()
    assert from_pipeline(pipe).autoencoder.tiling is None
    pipe.vae.enable_tiling()
    assert from_pipeline(pipe).autoencoder.tiling is not None


@pytest.mark.parametrize("padding", ["!", "<|endoftext|>"])
def test_the_padding_of_the_second_tokenizer_is_followed(padding):
    pipe = sdxl_pipeline()
    pipe.tokenizer_2 = tokenizer(padding)
    assert difference(pipe) < 1e-5
    again = to_diffusers(from_pipeline(pipe))
    assert again.tokenizer_2.pad_token == padding


def test_another_second_tokenizer_is_refused():
    pipe = sdxl_pipeline()
    pipe.tokenizer_2 = tokenizer("!")
    pipe.tokenizer_2.model_max_length = 20
    with pytest.raises(ModelError, match="two tokenizers of this model read texts differently"):
        from_pipeline(pipe)
