"""The networks of a pipeline and of our model, run on the same inputs."""

import torch


@torch.no_grad()
def networks(pair, scales):
    """Returns the outputs of both for the same inputs, component by component."""
    pipe, model = pair
    generator = torch.Generator().manual_seed(5)
    width = pipe.unet.config.cross_attention_dim
    x = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 7, width, generator=generator)
    t, added, context = (
        torch.tensor(321),
        {},
        {adapter.scale_key: torch.tensor(s) for adapter, s in scales.items()},
    )
    values = {"timestep": t, "text": text, **context}
    if model.base == "sdxl":
        pooled, ids = torch.randn(2, 24, generator=generator), torch.ones(2, 6) * 32
        added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
        values |= {"pooled": pooled, "time_ids": ids}
    rows = torch.tensor([[512, *range(30), 513]])
    yield "unet", model.unet(x, context=values), pipe.unet(x, t, text, **added).sample
    if model.base == "sd15":
        yield "text", model.text_encoder(rows, context=context), pipe.text_encoder(rows)[0]
    else:
        parts = [pipe.text_encoder, pipe.text_encoder_2]
        theirs = [part(rows, output_hidden_states=True).hidden_states[-2] for part in parts]
        yield "text", model.text_encoder(rows, context=context), torch.cat(theirs, -1)
