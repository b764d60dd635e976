"""Textual inversion: words whose vectors were learned (arXiv:2208.01618)."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Edit, Model, Seat, Source
from refiners_core.errors import AdapterError, Notice, WeightsError
from refiners_core.models.device import built_on
from refiners_core.weights import write
from refiners_textualinversion.embedding_file import ENCODERS, NAME, Vectors, read_vectors
from refiners_textualinversion.learned_word import LearnedWords
from refiners_textualinversion.word import check_new, check_word

SLOT: Final = "text_encoder.embedding"
_FAMILIES: Final = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL"}
"""The families by the width of their vectors; that of SDXL's second encoder."""


class TextualInversion(Adapter):
    """Teaches the text encoder a word (arXiv:2208.01618, section 4).

    Prompts and negative prompts may have the word, weighted as any other: `(<cat>:1.2)`. It is read
    as one or several tokens; the text encoder's own tokens stay. It takes no condition. At a scale
    of 0 the word is ordinary text. At any other scale its vectors are those of the file times the
    scale; with `initial`, they are on the line from the vector of that word, at 0, to those of the
    file, at 1.

    Args:
        word: The word; by default the one in the file, or the name of the file.
        initial: A word of one token at whose vector the vectors begin. An untrained adapter begins
            with it.
        vectors: For an untrained adapter, the number of its vectors; None reads the settings of the
            variant, and without them is 1.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: The word cannot be part of a prompt, or the number of vectors is below 1.

    Example:
        >>> TextualInversion(word="<cat>").word
        '<cat>'
    """

    def __init__(
        self,
        *,
        word: str | None = None,
        initial: str | None = None,
        vectors: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if word is not None:
            check_word(word)
        if vectors is not None and (not isinstance(vectors, int) or vectors < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"{self.key} cannot have {vectors!r} vectors.",
                hint='Try TextualInversion(word="<cat>", vectors=4).',
            )
        self._counts: dict[str, tuple[int, ...]] = {}  # in each text encoder, by word
        self.word = word
        self.initial = initial
        self._untrained: Final = vectors

    def build(self, model: Any, source: Source | None) -> None:
        """Builds the table of each text encoder for which there are vectors.

        Raises:
            WeightsError: The file is not a textual inversion, is damaged, or has vectors for the
                text encoder of another family.
            AdapterError: `model` is a part of a model, or a word is one of the model's.

        Warns:
            Notice: A text encoder spells out the word, because the file has no vectors for it.
        """
        if not isinstance(model, Model) or SLOT not in model.slots:
            raise AdapterError(
                f"a textual inversion goes on a model with the slot {SLOT}, not on "
                f"{type(model).__name__}.",
                hint="Try adapter.inject(model).",
            )
        seats = [*model.slot(SLOT)]
        widths = [int(seat.facts["embedding_dim"]) for seat in seats]
        is_new = source is None or "weights" not in source.files
        parts = (
            self._begun(model, widths, source)
            if source is None or is_new
            else self._read(source, model, widths)
        )
        words = [*dict.fromkeys(part.word for part in parts)]
        counts = {
            word: tuple(
                [
                    sum(len(p.values) for p in parts if (p.word, p.encoder) == (word, encoder))
                    for encoder in range(len(widths))
                ]
            )
            for word in words
        }
        self._check_tokens(model, counts)
        for encoder, seat in enumerate(seats):
            values = [part.values for part in parts if part.encoder == encoder]
            if values:
                self.layer(seat, lambda values=values: _table(values, is_frozen=not is_new))
        self.words = self._counts = counts

    @torch.no_grad()
    def start(self, model: Any) -> None:
        """Copies the vector of the initial word, if there is one (section 4.2 of the paper)."""
        if self._initial is None:
            return
        for seat in model.slot(SLOT):
            if self._is_taught(seat):
                table = seat.layer.get_parameter("weight")
                for vector in self.layer(seat, _missing).weight:
                    vector.copy_(table[self._initial])

    def edits(self, model: Any) -> Iterable[Edit]:
        """Looks up the tokens of the words beside those of the base.

        Raises:
            AdapterError: Another worn adapter brings the word.
        """
        for other in model.adapters:
            known = {word.lower() for word in other.words}
            if other is not self and (taken := [w for w in self.words if w.lower() in known]):
                raise AdapterError(
                    f"{self._origin} brings {min(taken)!r}, which {other.key} brings as well.",
                    hint=f'Pass another: word="<{min(taken).strip("<>")}-2>".',
                )
        seats = model.slot(SLOT).where(self._is_taught)
        return seats.wrap(self._with_words, name="words")

    def published(self) -> Mapping[str, Tensor]:
        """Returns the vectors under the word, as diffusers writes them; for the second text
        encoder, or both, under `clip_l` and `clip_g`."""
        tables = [weight.detach() for weight in self.own_layers.parameters()]
        counts = [*self._counts.values()]
        taught = [i for i in range(len(counts[0])) if any(each[i] for each in counts)]
        if taught == [0]:
            parts = tables[0].split([each[0] for each in counts])
            return dict(zip(self.words, parts, strict=True))
        return {ENCODERS[i]: table for i, table in zip(taught, tables, strict=True)}

    def save(self, path: str | Path) -> None:
        """Writes the vectors, with the word in the header of the file."""
        metadata = {NAME: next(iter(self.words))} if len(self.words) == 1 else {}
        write(self.published(), path, metadata)

    @property
    def _origin(self) -> str:
        """The file of the words, or the key of an untrained adapter, for messages."""
        file = None if self.source is None else self.source.files.get("weights")
        return self.key if file is None else file.name

    def _is_taught(self, seat: Seat) -> bool:
        return seat.path.replace(".", "/") in self.own_layers

    def _with_words(self, inner: nn.Module, seat: Seat) -> LearnedWords:
        return LearnedWords(
            inner,
            self.layer(seat, _missing),
            words_key=self.context_key("words"),
            scale_key=self.scale_key,
            initial=self._initial,
        )

    def _check_tokens(self, model: Any, counts: Mapping[str, Sequence[int]]) -> None:
        """Checks the words, and finds the token at which they begin."""
        self._initial: int | None = None
        tokenizer = getattr(model, "tokenizer", None)
        if tokenizer is None:  # a model without weights
            return
        for word, numbers in counts.items():
            check_new(word, max(numbers), tokenizer, model.base, self._origin)
        if self.initial is not None:
            tokens = tokenizer.tokens(self.initial)
            if len(tokens) != 1:
                raise AdapterError(
                    f"{self.key} begins at the vector of one token; {self.initial!r} has "
                    f"{len(tokens)}.",
                    hint='Choose a frequent word: initial="cat".',
                )
            (self._initial,) = tokens

    def _read(self, source: Source, model: Any, widths: Sequence[int]) -> list[Vectors]:
        path = source.files["weights"]
        parts = read_vectors(path)
        if second := source.files.get("second"):
            known = {part.word for part in parts}
            parts += [part for part in read_vectors(second) if {part.word} == known]
        fitted = [_fitted(path.name, part, model.base, widths) for part in parts]
        if self.word is not None:
            if len(words := {part.word for part in fitted}) > 1:
                raise AdapterError(
                    f"{path.name} has {len(words)} words: {', '.join(sorted(words)[:4])}.",
                    hint="Leave word= out.",
                )
            fitted = [Vectors(self.word, part.values, part.encoder) for part in fitted]
        for part in fitted:
            check_word(part.word)
        taught = {part.encoder for part in fitted}
        if missing := [i for i in range(len(widths)) if i not in taught]:
            names = ("first", "second")
            word = fitted[0].word
            warnings.warn(
                f"{path.name} has no vectors for the {names[missing[0]]} text encoder of this "
                f"{model.base} ({widths[missing[0]]} features), which spells out {word!r}.",
                Notice,
                stacklevel=6,
            )
        return fitted

    def _begun(self, model: Any, widths: Sequence[int], source: Source | None) -> list[Vectors]:
        stated = {} if source is None else source.settings
        word = self.word or stated.get("word") or f"<{self.key}>"
        count = self._untrained or stated.get("vectors", 1)
        check_word(word)
        with built_on(model.device):
            return [
                Vectors(word, torch.randn(count, width) * 0.02, encoder)
                for encoder, width in enumerate(widths)
            ]


def _fitted(file: str, part: Vectors, base: str, widths: Sequence[int]) -> Vectors:
    """Returns vectors with the text encoder that reads them.

    Raises:
        WeightsError: The model has no such text encoder.
    """
    width = part.values.shape[1]
    if part.encoder is None and width in widths:
        return Vectors(part.word, part.values, widths.index(width))
    if part.encoder is not None and [width] == list(widths[part.encoder : part.encoder + 1]):
        return part
    if part.encoder == len(widths) == 1:
        raise WeightsError(
            f"{file} has vectors for a second text encoder, as SDXL has; this {base} has one.",
            hint=f"Give a textual inversion that was trained for {base}.",
        )
    family = f", as those for {_FAMILIES[width]}" if width in _FAMILIES else ""
    readers = " and ".join(map(str, widths))
    plural = "encoders" if len(widths) > 1 else "encoder"
    raise WeightsError(
        f"{file} has vectors of {width} features{family}; the text {plural} of this {base} "
        f"read{'s' * (len(widths) == 1)} {readers}.",
        hint=f"Give a textual inversion that was trained for {base}.",
    )


def _table(values: Sequence[Tensor], *, is_frozen: bool) -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.cat([*values]), freeze=is_frozen)


def _missing() -> nn.Module:
    raise AssertionError("tables are built in build()")
