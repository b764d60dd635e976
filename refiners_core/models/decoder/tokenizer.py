"""The tokenizer of a language model, from its data files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import Tokenizer

from refiners_core.errors import ModelError
from refiners_core.models.decoder.chat import ChatTemplate
from refiners_core.models.folder import json_table

_SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


class TextTokenizer:
    """Turns texts and conversations into tokens and back, as `tokenizer.json` describes it.

    Args:
        model: The tokenizer of the library, whose post-processor adds the tokens that begin a text.
        chat: The template of conversations; without one only texts are read.
        special: The special tokens by the names of templates, such as `bos_token`.
    """

    def __init__(
        self,
        model: Tokenizer,
        chat: ChatTemplate | None = None,
        special: Mapping[str, str] | None = None,
    ) -> None:
        model.no_padding()
        model.no_truncation()
        self.model: Final = model
        self.chat: Final = chat
        self.special: Final[Mapping[str, str]] = dict(special or {})

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """Reads `tokenizer.json` and, where they exist, `tokenizer_config.json` and
        `chat_template.jinja` of a folder; returns None if it has no tokenizer.

        Raises:
            ModelError: A file cannot be read.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            return None
        try:
            model = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no narrower type
            raise ModelError(
                f"{path} is not a tokenizer: {error}.", hint="Fetch the model again."
            ) from error
        settings = folder / "tokenizer_config.json"
        data = json_table(settings) if settings.is_file() else {}
        names = {name: _content(data.get(name)) for name in _SPECIAL}
        special = {name: token for name, token in names.items() if token is not None}
        return cls(model, ChatTemplate.load(folder, data), special)

    @property
    def size(self) -> int:
        """The number of tokens, those that were added included."""
        return self.model.get_vocab_size(with_added_tokens=True)

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text, with the tokens that begin or end one."""
        return list(self.model.encode(text, add_special_tokens=True).ids)

    def chat_tokens(self, messages: Sequence[Mapping[str, Any]], **values: Any) -> list[int]:
        """Returns the ids of a conversation up to the answer that follows.

        A conversation that ends with words of the assistant is continued after them.

        Args:
            messages: The messages, each with `role` and `content`.
            values: Further values for the template, such as `tools`.

        Raises:
            ModelError: The model has no template, or the template refuses the conversation.
        """
        if self.chat is None:
            raise ModelError(
                "this model has no chat template.",
                hint="Pass a text as the prompt, or load a model that was trained for chats.",
            )
        rendered = self.chat.rendered(messages, {**self.special, **values})
        # The template writes the special tokens itself.
        return list(self.model.encode(rendered, add_special_tokens=False).ids)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones."""
        return self.model.decode(list(tokens), skip_special_tokens=True)

    def is_byte(self, token: int) -> bool:
        """Whether a token is one byte of a character, such as `<0xE5>`."""
        name: str | None = self.model.id_to_token(token)
        return name is not None and len(name) == 6 and name.startswith("<0x") and name[-1] == ">"


def _content(token: Any) -> str | None:
    """Returns the text of a special token, which files write as such or as a table."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
