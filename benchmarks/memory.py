"""Measures the memory to decode a picture of 1024x1024, and to cast weights while loading.

Run `python benchmarks/memory.py`. The networks are SDXL's autoencoder and Stable Diffusion 1.5's
UNet, with zeros as weights. Each figure is the peak of memory that no file backs, minus the memory
before, in a separate process. It exits with 1 if a bar is missed.

With `--language`, it measures instead the resident memory of a language model with random weights,
mapped pages included, from before loading to the first token, over the size of its files: 4.4 GB
in bfloat16, in shards.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import WEIGHTS, anonymous, child, publish

MOST_TILED = 1300.0
"""The figure in the documentation of `AutoencoderKL`, in MB."""
MOST_OVER_ONE_COPY = 20.0
MOST_OVER_FILE = 1.05
LANGUAGE = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 9, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
"""The sizes of Mistral 7B with 9 of its 32 layers."""
SHARD = 2**30


class Peak(threading.Thread):
    """Samples the memory of this process a thousand times a second within a `with` block.

    `megabytes` is the difference between the highest sample and the first, before the block.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = anonymous()
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.001):
            self.most = max(self.most, anonymous())

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.most = max(self.most, anonymous())
        self.is_over.set()
        self.join()

    @property
    def megabytes(self) -> float:
        return self.most - self.before


def decoding(is_tiled: bool) -> float:
    """Returns the megabytes that decoding takes, including the picture itself, 12 MB."""
    import torch

    from refiners_core.models import sdxl
    from refiners_core.models.vae import AutoencoderKL, Tiling

    model = AutoencoderKL(sdxl.AUTOENCODER).eval().requires_grad_(False)
    if is_tiled:
        model.tiling = Tiling()
    model.decode(torch.zeros(1, 4, 8, 8))
    latents = torch.randn(1, 4, 128, 128)
    with Peak() as peak:
        pixels = model.decode(latents)
    assert pixels.shape == (1, 3, 1024, 1024)
    return peak.megabytes


def casting(folder: str) -> tuple[float, float]:
    """Returns the megabytes to load a file of float32 as float16, and of one copy in float16."""
    import torch

    from refiners_core import weights
    from refiners_core.models.device import built_on
    from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

    def build() -> UNet:
        with built_on("meta"):
            return UNet(UNetConfig())

    tree = build()
    with Peak() as peak:
        weights.load(tree, Path(folder) / WEIGHTS, UNET_KEYS, dtype=torch.float16)
    return peak.megabytes, sum(weight.nbytes for weight in tree.parameters()) / 2**20


def publish_language(place: str) -> None:
    """Writes a language model with random weights as it is published, one shard at a time."""
    import torch
    from safetensors.torch import save_file

    from refiners_core import weights
    from refiners_core.models.decoder import Decoder, DecoderConfig, decoder_keys

    folder = Path(place)
    (folder / "config.json").write_text(json.dumps(LANGUAGE))
    config = DecoderConfig.from_json(LANGUAGE)
    with torch.device("meta"):
        tensors = weights.published(Decoder(config), decoder_keys(config))
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}

    def write() -> None:
        name = f"model-{len(set(places.values())) + 1:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for key, tensor in tensors.items():
        fan = tensor.shape[-1]
        weight = torch.empty(tensor.shape, dtype=torch.bfloat16)
        shard[key] = weight.normal_(0, fan**-0.5) if tensor.ndim > 1 else weight.fill_(1)
        if sum(part.nbytes for part in shard.values()) > SHARD:
            write()
    write()
    index = {"weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def resident(peak: bool = False) -> float:
    """Returns the memory of this process, mapped files included, now or at most so far, in MB."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return float("nan")


def answering(folder: str) -> float:
    """Returns the megabytes to load a language model and to write its first token."""
    import torch

    from refiners_core.models.decoder import load_decoder

    small = torch.ones(64, 64, dtype=torch.bfloat16)
    torch.mm(small, small)  # loads the library that multiplies
    before = resident()
    model = load_decoder(folder)
    prompt = torch.arange(16)
    assert len(model.generate(prompt, max_new_tokens=1, output="tokens")) == 1
    return resident(peak=True) - before


def language() -> int:
    with tempfile.TemporaryDirectory(prefix="refiners-") as place:
        folder = Path(place)
        child("writing", place)  # in another process, as this one shall not keep the memory
        files = [*folder.glob("*.safetensors")]
        size = sum(file.stat().st_size for file in files) / 2**20
        taken = child("answering", place)
    ratio = taken / size
    verdict = "ok" if ratio <= MOST_OVER_FILE else "MISSED"
    print(f"{len(files)} files of a language model    {size:8.0f} MB")
    print(f"peak up to its first token       {taken:8.0f} MB")
    print(f"peak / files                     {ratio:8.3f}    bar {MOST_OVER_FILE} {verdict}")
    return 0 if ratio <= MOST_OVER_FILE else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--language", action="store_true", help="measure a language model instead")
    options = parser.parse_args()
    measured: dict[str, Callable[..., Any]] = {
        "whole": lambda: decoding(False),
        "tiled": lambda: decoding(True),
        "casting": casting,
        "writing": publish_language,
        "answering": answering,
    }
    if options.child:
        kind, *more = options.child
        print(json.dumps(measured[kind](*more)))
        return 0
    if options.language:
        return language()
    whole, tiled = child("whole"), child("tiled")
    with tempfile.TemporaryDirectory(prefix="refiners-") as folder:
        publish("sd15", Path(folder))
        taken, copy = child("casting", folder)
    print(f"decode 1024x1024, whole    {whole:8.0f} MB")
    met = True
    for title, value, bar in (
        ("decode 1024x1024, Tiling()", tiled, MOST_TILED),
        (f"cast while loading, beyond {copy:.0f} MB", taken - copy, MOST_OVER_ONE_COPY),
    ):
        met &= value <= bar
        print(f"{title:<36} {value:8.0f} MB bar {bar:5.0f} {'ok' if value <= bar else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
