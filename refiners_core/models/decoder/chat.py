"""Templates of conversations, which turn messages into the text that a model was trained on."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self, cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from refiners_core.errors import GenerationError, ModelError

ASSISTANT: Final = "assistant"


class ChatTemplate:
    """A published template in Jinja, which runs in a sandbox: it reads its values and writes text.

    Args:
        source: The template.

    Raises:
        ModelError: The template is not valid.

    Example:
        >>> chat = ChatTemplate("{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}")
        >>> chat.rendered([{"role": "user", "content": "hi"}])
        '<user> hi'
    """

    def __init__(self, source: str) -> None:
        self.source: Final = source
        try:
            self._template: Final = _environment().from_string(source)
        except TemplateError as error:
            raise ModelError(
                f"the chat template is not valid: {error}.", hint="Fetch the model again."
            ) from error

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Copies the source: a compiled template can be neither copied nor pickled."""
        return type(self), (self.source,)

    @classmethod
    def load(cls, folder: str | Path, settings: Mapping[str, Any]) -> Self | None:
        """Reads `chat_template.jinja`, or the template of `tokenizer_config.json`.

        Of several templates the one named `default` counts.

        Args:
            folder: The folder of the model.
            settings: The content of `tokenizer_config.json`.

        Raises:
            ModelError: The template is not valid.
        """
        path = Path(folder) / "chat_template.jinja"
        if path.is_file():
            return cls(path.read_text("utf-8"))
        source: Any = settings.get("chat_template")
        if isinstance(source, list):
            named = {item.get("name"): item.get("template") for item in source}
            source = named.get("default")
        return cls(source) if isinstance(source, str) else None

    def rendered(
        self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any] | None = None
    ) -> str:
        """Returns the text of a conversation, up to the answer that follows.

        If the last message is of the assistant, the text ends with it, so that it is continued.

        Args:
            messages: The messages, each with `role` and `content`.
            values: Further values for the template, such as special tokens.

        Raises:
            GenerationError: The template refuses the conversation.
        """
        last = messages[-1]
        if last.get("role") != ASSISTANT:
            return self._render(messages, values, add_generation_prompt=True)
        written, text = str(last.get("content") or ""), self._render(messages, values)
        # A template that strips messages writes the same for a stripped one.
        for strip in (str.lstrip, str.rstrip):
            shorter = [*messages[:-1], {**last, "content": strip(written)}]
            if self._render(shorter, values) == text:
                written = strip(written)
        begin = text.rfind(written)
        if begin < 0:
            raise GenerationError(
                "the chat template does not write the last message of the assistant, so it cannot "
                "be continued.",
                hint="End the conversation with a message of the user.",
            )
        return text[: begin + len(written)]

    def whole(
        self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any] | None = None
    ) -> str:
        """Returns the text of a conversation with all that the template writes after its last
        message, such as the token that ends an answer.

        Args:
            messages: The messages, each with `role` and `content`.
            values: Further values for the template, such as special tokens.

        Raises:
            GenerationError: The template refuses the conversation.
        """
        return self._render(messages, values)

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        values: Mapping[str, Any] | None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **{"tools": None, "documents": None, **(values or {})},
            )
        except (TemplateError, TypeError) as error:
            raise GenerationError(
                f"the chat template refuses the conversation: {error}.",
                hint='Messages are {"role": "user", "content": "..."}, user and assistant in turn.',
            ) from error


class _Generation(Extension):
    """Reads `{% generation %}`, with which templates mark what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012  the type of the base class

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    values = cast("dict[str, Any]", environment.globals)
    values.update(raise_exception=_refuse, strftime_now=_now)
    return environment


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Returns JSON without the escapes for HTML of Jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
