"""One generation of text: all arguments are checked before the network runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from refiners_core import option
from refiners_core.errors import GenerationError, ModelError
from refiners_core.models.decoder import argument
from refiners_core.models.decoder.cache import CACHE, Cache
from refiners_core.models.decoder.continuation import Continuation, Ending
from refiners_core.models.decoder.places import RECENT, TOKEN_MASK
from refiners_core.models.decoder.prompt import PromptRows, padded, read_prompts
from refiners_core.models.decoder.prompt_cache import PromptCache, State
from refiners_core.models.decoder.request import COND, TextRequest, conditions_of, encoded
from refiners_core.models.decoder.sampling import Sampling
from refiners_core.models.decoder.text_stream import TextStream
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.noise import checked_seeds
from refiners_core.tree.context import Context
from refiners_core.tree.layer import running

OUTPUTS: Final = ("text", "tokens", "scores")
_ROOM: Final = 1024
"""The number of new tokens for which a cache has room from the start; it grows beyond."""


@dataclass
class _Row:
    """A text that is being written."""

    generator: torch.Generator
    stream: TextStream | None
    tokens: list[int] = field(default_factory=list[int])
    log_probabilities: list[Tensor] = field(default_factory=list[Tensor])
    ending: Ending | None = None


@dataclass(frozen=True)
class TextGeneration:
    """The checked arguments of one call of `LanguageModel.generate`, which documents them."""

    model: Any
    prompts: PromptRows
    """The tokens of each row."""
    request: TextRequest
    conditions: Any
    sampling: Sampling
    stops: tuple[str, ...]
    most: int
    """The number of new tokens, at most."""
    seeds: tuple[int, ...]
    output: str
    is_single: bool
    """Whether the caller expects one text rather than a list."""
    callback: Callable[[int, Tensor], Any] | None
    reuse: PromptCache | None
    """The cache that the caller keeps."""

    @classmethod
    def checked(
        cls,
        model: Any,
        prompt: Any,
        *,
        conditions: Any,
        max_new_tokens: Any,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        min_p: Any,
        repetition_penalty: Any,
        stop: Any,
        seed: Any,
        count: Any,
        output: Any,
        callback: Any,
        reuse: Any,
    ) -> "TextGeneration":
        """Checks the arguments of `generate`; the network does not run.

        Raises:
            GenerationError: An argument has a wrong type, is out of range, or contradicts another.
            ConditionError: A worn adapter lacks a condition, or refuses the one it is given.
            ModelError: The prompt needs a tokenizer or a template that the model does not have.
        """
        read = read_prompts(prompt, model.tokenizer, model.config.vocabulary)
        count = option.whole("count", count, 1, error=GenerationError)
        most = option.whole("max_new_tokens", max_new_tokens, 64, error=GenerationError)
        rows = [row for row in read.tokens for _ in range(count)]
        texts = [text for text in read.texts for _ in range(count)]
        request = model.request(len(rows), {COND: texts} if texts else {})
        acting = conditions_of(request, conditions).request
        before = [acting.tokens_before(row) for row in range(len(rows))]
        argument.check_length(model.config, [len(row) for row in rows], most, before)
        output = option.choice("output", output, OUTPUTS, error=GenerationError)
        stops = argument.stops(stop)
        if model.tokenizer is None and (stops or output == "text"):
            raise ModelError(
                "this model has no tokenizer, so it neither writes texts nor finds a stop.",
                hint='Try output="tokens" without stop=.',
            )
        if callback is not None and not callable(callback):
            raise GenerationError(
                f"callback is a function of the step and its tokens, not {callback!r}.",
                hint="Try callback=lambda step, tokens: True.",
            )
        if not isinstance(reuse, PromptCache | None):
            raise GenerationError(
                f"reuse is a PromptCache that calls share, not {reuse!r}.",
                hint="Try cache = PromptCache(), then reuse=cache in each call.",
            )
        return cls(
            model=model,
            prompts=PromptRows(rows, texts, read.is_single),
            request=request,
            conditions=conditions,
            sampling=argument.sampling(
                model.defaults, temperature, top_k, top_p, min_p, repetition_penalty
            ),
            stops=stops,
            most=most,
            seeds=tuple(checked_seeds(seed, len(rows), "texts")),
            output=output,
            is_single=read.is_single and count == 1 and not isinstance(seed, list | tuple),
            callback=callback,
            reuse=reuse,
        )

    def run(self) -> Any:
        """Generates the texts; meanwhile no adapter can be injected or ejected."""
        rows = self._rows()
        for _ in self._steps(rows):
            pass
        results = [self._result(row) for row in rows]
        return results[0] if self.is_single else results

    def pieces(self) -> Iterator[Any]:
        """Yields the text of each row as it is written, and last what was held back."""
        rows = self._rows(has_text=True)
        for pieces in self._steps(rows):
            if any(pieces):
                yield pieces[0] if self.is_single else pieces
        last = [row.stream.finish() if row.stream else "" for row in rows]
        if any(last):
            yield last[0] if self.is_single else last

    def _rows(self, has_text: bool = False) -> list[_Row]:
        has_text = has_text or bool(self.stops)
        return [
            _Row(
                torch.Generator("cpu").manual_seed(seed),
                TextStream(self.model.tokenizer, self.stops) if has_text else None,
            )
            for seed in self.seeds
        ]

    def _steps(self, rows: Sequence[_Row]) -> Iterator[list[str]]:
        """Writes a token to each row that has not ended, and yields the text that it adds."""
        with running(self.model):
            active, scales, request = conditions_of(self.request, self.conditions)
            values = encoded(request, active)
            context = scales.context(values)
            ids, mask = self._padded(self.prompts.tokens)
            cache = context[CACHE] = Cache(ids.shape[1] + min(self.most, _ROOM))
            context[RECENT] = 1
            seen = self._seen(ids, mask)
            state, prompts = None, self.prompts.tokens
            if self.reuse is not None:
                state = State.of(request, values)
                known = self.reuse.fill(cache, prompts, state)
                ids, mask = self._padded([row[known:] for row in prompts])
            for step in range(self.most):
                if mask is not None:
                    context[TOKEN_MASK] = mask
                ids, pieces = self._step(rows, self._logits(ids, context), seen)
                is_last = self.callback is not None and self.callback(step, ids[:, 0]) is False
                yield pieces
                if is_last or all(row.ending for row in rows):
                    break
                if mask is not None or any(row.ending for row in rows):
                    mask = torch.tensor([[not row.ending] for row in rows], device=ids.device)
            if self.reuse is not None:
                self.reuse.keep(cache, [*prompts[0], *rows[0].tokens], state)
            for row in rows:
                is_long = len(row.tokens) == self.most
                row.ending = row.ending or ("length" if is_long else "callback")

    def _step(
        self, rows: Sequence[_Row], logits: Tensor, seen: Tensor | None
    ) -> tuple[Int[Tensor, "rows 1"], list[str]]:
        """Chooses a token for each row, and returns the tokens and the text that they add."""
        chosen = self.sampling.choose(
            logits, seen, [None if row.ending else row.generator for row in rows]
        )
        ids = chosen.tolist()
        likely = logits.float().log_softmax(-1) if self.output == "scores" else None
        pieces = [""] * len(rows)
        for i, row in enumerate(rows):
            if row.ending:
                ids[i] = self._padding
                continue
            row.tokens.append(ids[i])
            if likely is not None:
                row.log_probabilities.append(likely[i, ids[i]])
            if ids[i] in self.model.defaults.ends:
                row.ending = "end"
                pieces[i] = row.stream.finish() if row.stream else ""
            elif row.stream is not None:
                pieces[i] = row.stream.push(ids[i])
                row.ending = "stop" if row.stream.is_stopped else None
        tokens = chosen[:, None]
        if any(row.ending for row in rows):
            tokens = torch.tensor(ids, device=logits.device)[:, None]
        if seen is not None:
            seen.scatter_(1, tokens, True)
        return tokens, pieces

    @torch.inference_mode()
    def _logits(self, ids: Tensor, context: Context) -> Float[Tensor, "rows vocabulary"]:
        """Returns the logits of the next tokens; autocast around the call is turned off.

        Inference mode takes a tenth less time than `no_grad`, as views are not tracked.
        """
        kinds = {"cpu", self.request.device.type}
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, kinds):
                stack.enter_context(torch.autocast(kind, enabled=False))
            logits = self.model.at("decoder")(ids, context=context)[:, -1]
        check_finite(logits, "decoder", self.request.dtype)
        return logits

    def _padded(
        self, rows: Sequence[list[int]]
    ) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"] | None]:
        """Returns tokens, shorter rows after padding, and True for those that are not padding."""
        return padded(rows, self._padding, self.request.device)

    def _seen(self, ids: Tensor, mask: Tensor | None) -> Bool[Tensor, "rows vocabulary"] | None:
        """Returns True for the tokens of each prompt; padding does not occur in it."""
        if self.sampling.repetition_penalty == 1:
            return None
        seen = torch.zeros(
            len(ids), self.model.config.vocabulary, dtype=torch.bool, device=ids.device
        )
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        for i, row in enumerate(ids):
            seen[i, row[real[i]]] = True
        return seen

    def _result(self, row: _Row) -> Any:
        if row.stream is not None:
            row.stream.finish()
        if self.output == "tokens":
            return torch.tensor(row.tokens, device="cpu")
        is_ended = row.ending == "end"
        text = ""
        if row.stream is not None:
            text = row.stream.text
        elif self.model.tokenizer is not None:
            text = self.model.tokenizer.text(row.tokens[:-1] if is_ended else row.tokens)
        if self.output == "text":
            return text
        assert row.ending is not None, "every row has ended"
        likely = torch.stack(row.log_probabilities).cpu()
        return Continuation(text, torch.tensor(row.tokens, device="cpu"), likely, row.ending)

    @property
    def _padding(self) -> int:
        """The token in places without one, which nothing attends to."""
        padding = self.model.config.padding
        return 0 if padding is None or padding < 0 else padding
