"""Latents of pictures on disk, encoded once; as mean and deviation, so that they can be sampled."""

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refiners_core.models.device import moved
from refiners_core.models.vae import AutoencoderKL
from refiners_train.data.chance import noise_generator
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Example
from refiners_train.data.picture_source import PictureSource

KEY: Final = "cache.json"


class LatentCache:
    """A source with latents in place of the pictures of another.

    The latents are `(sample - shift) * factor` with the numbers of the autoencoder that encoded
    them, in float32. Flips and crops are those of the first `variants` epochs, which later epochs
    repeat in turn.

    Args:
        source: The pictures.
        autoencoder: The autoencoder of the base.
        folder: The folder of the cache, which `fill` writes.
        variants: The number of epochs with flips and crops of their own.
        dtype: The dtype on disk.
        is_sampled: Whether latents are sampled anew in each epoch; otherwise they are means.

    Raises:
        DataError: The folder holds the latents of another autoencoder, of other pictures, or in
            another dtype.
    """

    def __init__(
        self,
        source: PictureSource,
        autoencoder: AutoencoderKL,
        folder: str | Path,
        *,
        variants: int = 1,
        dtype: torch.dtype = torch.float32,
        is_sampled: bool = True,
    ) -> None:
        self.source: Final = source
        self.folder: Final = Path(folder)
        self.variants: Final = variants
        self._dtype: Final = dtype
        self._is_sampled: Final = is_sampled
        self._shift: Final = autoencoder.config.shift_factor
        self._factor: Final = autoencoder.config.scaling_factor
        self.key: Final[Mapping[str, Any]] = {
            "autoencoder": weights_digest(autoencoder),
            "factor": self._factor,
            "shift": self._shift,
            "dtype": str(dtype).removeprefix("torch."),
            "size": repr(source.size),
            "crop": source.framing.crop,
            "flip": source.framing.flip,
            "seed": source.seed,
            "pictures": source.records.fingerprint,
        }
        """The facts that the latents depend on, written beside them."""
        path = self.folder / KEY
        if path.exists():
            self._check(path)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the pictures, and how they are encoded."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        return f"{digest} in {self.variants} variants, {'sampled' if self._is_sampled else 'means'}"

    def __len__(self) -> int:
        return len(self.source)

    def group(self, index: int) -> Hashable:
        """Returns height and width of the picture of an example."""
        return self.source.group(index)

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example with latents.

        Raises:
            DataError: The latents are not in the cache.
        """
        variant = epoch % self.variants
        path = self._path(index, variant)
        if not path.exists():
            raise DataError(
                f"{path} does not exist.", hint="Call fill(autoencoder) before the training."
            )
        tensors = load_file(path)
        z = tensors["mean"].float()
        if self._is_sampled:
            noise = noise_generator("latents", self.source.seed, epoch, index)
            z = z + tensors["std"].float() * torch.randn(z.shape, generator=noise)
        example = self.source.without_picture(index, variant)
        return replace(example, latents=(z - self._shift) * self._factor)

    @torch.no_grad()
    def fill(
        self,
        autoencoder: AutoencoderKL,
        *,
        rows: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Encodes, in float32, the pictures whose latents are missing; can be interrupted.

        Args:
            autoencoder: The autoencoder of the constructor, on the device to use.
            rows: The number of pictures of one size that are encoded at a time.
            progress: Is called with the numbers of encoded and of all missing pictures.

        Raises:
            DataError: The latents of a picture are not finite; the message names it.
        """
        missing = [
            (index, variant)
            for variant in range(self.variants)
            for index in range(len(self))
            if not self._path(index, variant).exists()
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / KEY, (json.dumps(self.key, indent=2, sort_keys=True) + "\n").encode())
        device, done = autoencoder.device, 0
        with moved(autoencoder, dtype=torch.float32):
            for batch in self._batches(missing, rows):
                examples = [self.source.example(*pair) for pair in batch]
                pixels = torch.stack([_picture(example) for example in examples])
                mean, log_variance = autoencoder.moments(pixels.to(device) * 2 - 1)
                std = torch.exp(0.5 * log_variance)
                for (index, variant), *moments in zip(batch, mean.cpu(), std.cpu(), strict=True):
                    self._keep(index, variant, *moments)
                done += len(batch)
                if progress is not None:
                    progress(done, len(missing))

    def _keep(
        self,
        index: int,
        variant: int,
        mean: Float[Tensor, "channels height width"],
        std: Float[Tensor, "channels height width"],
    ) -> None:
        tensors = {"mean": mean.to(self._dtype), "std": std.to(self._dtype)}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise DataError(
                f"the latents of {self.source.records.record(index).name} are not finite in "
                f"{self.key['dtype']}.",
                hint="Take the picture out, or encode with another autoencoder.",
            )
        path = self._path(index, variant)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file(tensors, part)
        part.replace(path)

    def _batches(
        self, missing: list[tuple[int, int]], rows: int
    ) -> Iterator[list[tuple[int, int]]]:
        groups: dict[Hashable, list[tuple[int, int]]] = {}
        for pair in missing:
            batch = groups.setdefault(self.group(pair[0]), [])
            batch.append(pair)
            if len(batch) == rows:
                yield [*batch]
                batch.clear()
        yield from (batch for batch in groups.values() if batch)

    def _path(self, index: int, variant: int) -> Path:
        return self.folder / f"{index:07}-{variant}.safetensors"

    def _check(self, path: Path) -> None:
        written = json.loads(path.read_text("utf-8"))
        wrong = [name for name in self.key if written.get(name) != self.key[name]]
        if wrong:
            differences = "; ".join(
                f"{name} {written.get(name)!r}, not {self.key[name]!r}" for name in wrong
            )
            raise DataError(
                f"{self.folder} holds other latents: {differences}.",
                hint="Name another folder, or remove this one.",
            )


def weights_digest(module: nn.Module) -> str:
    """Returns the sha256 of the weights of a module, with their names and dtypes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _picture(example: Example) -> Tensor:
    assert example.picture is not None, "a picture source makes pictures"
    return example.picture


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
