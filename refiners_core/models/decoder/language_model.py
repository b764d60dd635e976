"""A language model: text in, text out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core.argument_names import explaining
from refiners_core.errors import GenerationError, ModelError
from refiners_core.model import Model
from refiners_core.models.decoder import argument
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.continuation import TextScore
from refiners_core.models.decoder.defaults import GenerationDefaults
from refiners_core.models.decoder.generation import TextGeneration
from refiners_core.models.decoder.layout import decoder_keys
from refiners_core.models.decoder.network import Decoder, DecoderBlock
from refiners_core.models.decoder.places import TOKEN_MASK
from refiners_core.models.decoder.prompt import padded, read_prompts
from refiners_core.models.decoder.prompt_cache import PromptCache
from refiners_core.models.decoder.request import COND, TextRequest, conditions_of, encoded
from refiners_core.models.decoder.slot import DECODER_SLOTS
from refiners_core.models.decoder.tokenizer import TextTokenizer
from refiners_core.tree.layer import running


class LanguageModel(Model):
    """A decoder-only transformer that continues texts and answers in conversations.

    Its component is `decoder`, which takes tokens and returns logits.

    Args:
        decoder: The network.
        tokenizer: Turns texts into tokens and back; without one, prompts and results are tokens.
        defaults: What the publisher states about generation.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.
    """

    repeated = (DecoderBlock,)

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: TextTokenizer | None = None,
        *,
        defaults: GenerationDefaults | None = None,
        base: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        config = decoder.config
        super().__init__(
            base=config.family if base is None else base,
            facts={
                "width": config.width,
                "layers": config.layers,
                "key_width": config.kv_heads * config.head_width,
                "vocabulary": config.vocabulary,
                **(facts or {}),
            },
            slots=DECODER_SLOTS,
            layouts={"decoder": decoder_keys(config)},
            decoder=decoder,
        )
        self.config: Final[DecoderConfig] = config
        self.tokenizer: Final = tokenizer
        self.defaults: Final = defaults or GenerationDefaults(config.ends)

    @explaining
    def generate(
        self,
        prompt: Any,
        *,
        conditions: Mapping[Any, Any] | None = None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        count: int = 1,
        output: str = "text",
        callback: Callable[[int, Tensor], bool | None] | None = None,
        reuse: PromptCache | None = None,
    ) -> Any:
        """Continues texts, or answers in conversations.

        Args:
            prompt: A text; a conversation, which is a list of messages `{"role": "user", "content":
                "..."}`; a 1-d tensor of tokens; or a list of prompts. A conversation that ends with
                words of the assistant is continued after them.
            conditions: The conditions of worn adapters, `{adapter: value}`. A `Condition` as value
                adds a scale; None leaves the adapter out this time.
            max_new_tokens: The number of tokens after the prompt, at most.
            temperature: The divisor of logits before a token is drawn; 0 takes the likeliest token
                each time.
            top_k: The number of likeliest tokens among which one is drawn. By default, this and the
                next three are those of the model's `generation_config.json`, or off.
            top_p: The probability, in 0...1, that the tokens among which one is drawn have together
                at least.
            min_p: The share, in 0...1, of the largest probability that such a token has at least.
            repetition_penalty: The number by which logits of tokens that occur already are reduced;
                1 for none.
            stop: A text, or several, before which the result ends.
            seed: The seed of the draws: a number, to which the i-th text adds i, or a list with one
                for each text. Batching does not change a text. By default torch's global generator
                draws the seed.
            count: The number of texts for each prompt.
            output: `text`; `tokens` for a 1-d tensor of the new tokens; or `scores` for a
                `Continuation` with both and the probabilities.
            callback: Called with each step, from 0, and the token of each row; the generation ends
                early if it returns False.
            reuse: A `PromptCache` that calls share, so that a prompt is not read again as far as it
                begins like the text of the last call. By default, every prompt is read whole.

        Returns:
            One result if `prompt` is one prompt, `count` is 1 and `seed` is not a list; otherwise a
            list of results.

        Raises:
            GenerationError: An argument has a wrong type, is out of range, or contradicts another;
                the network has not run.
            NotFiniteError: The network returned infinite numbers or NaN.
            ConditionError: A worn adapter lacks its condition, or cannot use it.
            ModelError: The model has no weights, or the prompt needs a tokenizer or a template that
                it does not have.
        """
        generation = TextGeneration.checked(
            self,
            prompt,
            conditions=conditions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
            seed=seed,
            count=count,
            output=output,
            callback=callback,
            reuse=reuse,
        )
        self.check_whole()
        return generation.run()

    @explaining
    def stream(
        self,
        prompt: Any,
        *,
        conditions: Mapping[Any, Any] | None = None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        count: int = 1,
        callback: Callable[[int, Tensor], bool | None] | None = None,
        reuse: PromptCache | None = None,
    ) -> Iterator[Any]:
        """Returns an iterator over the pieces of a text as it is written.

        Together they are the text that `generate` returns. Between the first piece and the last the
        model is running: no adapter can be injected or ejected, until the iterator ends or is
        closed. The arguments are those of `generate`.

        Returns:
            An iterator over pieces of text; over lists with a piece for each text if there are
            several.

        Raises:
            GenerationError, ConditionError, ModelError: As `generate` raises them, before the first
                piece.
        """
        generation = TextGeneration.checked(
            self,
            prompt,
            conditions=conditions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
            seed=seed,
            count=count,
            output="text",
            callback=callback,
            reuse=reuse,
        )
        self.check_whole()
        return generation.pieces()

    @torch.no_grad()
    def score(self, texts: Any, *, conditions: Mapping[Any, Any] | None = None) -> Any:
        """Returns how likely texts are for the model.

        Args:
            texts: A text, or any other prompt of `generate`; or a list of them.
            conditions: The conditions of worn adapters, as for `generate`.

        Returns:
            A `TextScore`, or a list of them.

        Raises:
            GenerationError: A text is empty, has a single token, or is too long.
            ConditionError: A worn adapter lacks its condition, or cannot use it.
            ModelError: The model has no weights or no tokenizer.
        """
        read = read_prompts(texts, self.tokenizer, self.config.vocabulary)
        lengths = [len(row) for row in read.tokens]
        if not 1 < min(lengths) <= max(lengths) <= self.config.places:
            counts = ", ".join(map(str, lengths))
            raise GenerationError(
                f"a score needs 2 to {self.config.places} tokens; the texts have {counts}.",
                hint="Pass longer texts, or parts of a long one.",
            )
        request = self.request(len(read.tokens), {COND: read.texts} if read.texts else {})
        active, scales, request = conditions_of(request, conditions)
        before = [request.tokens_before(row) for row in range(len(lengths))]
        argument.check_length(self.config, lengths, 0, before)
        self.check_whole()
        with running(self):
            context = scales.context(encoded(request, active))
            ids, mask = padded(read.tokens, max(self.config.padding or 0, 0), request.device)
            if mask is not None:
                context[TOKEN_MASK] = mask
            with torch.inference_mode():  # as in generations, so that compiled blocks serve both
                logits = self.at("decoder")(ids, context=context)[:, -ids.shape[1] :]
        likely = logits[:, :-1].float().log_softmax(-1)
        chosen = likely.gather(-1, ids[:, 1:, None])[..., 0].cpu()
        results = [
            TextScore(torch.tensor(row, device="cpu"), part[len(part) - len(row) + 1 :])
            for row, part in zip(read.tokens, chosen, strict=True)
        ]
        return results[0] if read.is_single else results

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks the arguments of `generate`; no weights are needed.

        Raises:
            GenerationError, ConditionError, ModelError: As `generate` raises them.
        """
        TextGeneration.checked(self, prompt, **{**_DEFAULTS, **arguments})

    def check_whole(self) -> None:
        """Checks that the model can generate.

        Raises:
            ModelError: The model has no weights: it is on the meta device.
        """
        if self.decoder.device.type == "meta":
            raise ModelError(
                f"this {self.base} has no weights: it is on the meta device.",
                hint="Load it whole: load_decoder(folder).",
            )

    def request(self, count: int, prompts: Mapping[str, Sequence[str]]) -> TextRequest:
        """Returns the facts of a generation that adapters read.

        Args:
            count: The number of rows.
            prompts: Under `cond`, the text of each row.
        """
        return TextRequest(self, count, self.decoder.dtype, self.decoder.device, prompts=prompts)


_DEFAULTS: Final[Mapping[str, Any]] = {
    **{"conditions": None, "max_new_tokens": 256, "temperature": 0.0, "top_k": None},
    **{"top_p": None, "min_p": None, "repetition_penalty": None, "stop": None, "seed": None},
    **{"count": 1, "output": "text", "callback": None, "reuse": None},
}
