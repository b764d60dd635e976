"""The blocks of other libraries on the pages "Coming from ..." use what these libraries have."""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest

PAGES = Path(__file__).parents[2] / "docs/guide/from"
BLOCK = re.compile(r"^```\{code-block\} (\w+)\n:caption: ([^\n]*)\n\n(.*?)^```", re.M | re.S)
FORWARDED = {peft.PeftModel: (peft.LoraModel,)}
"""Classes whose objects hand missing attributes on to another one."""
CHECKED = ("diffusers", "peft", "transformers", "torch")


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Returns the language, the caption and the code of each block of another library."""
    return BLOCK.findall((PAGES / page).read_text())


def faults(code: str, known: dict[str, Any]) -> Iterator[str]:
    """Yields the names and arguments of a block that the installed libraries lack.

    Args:
        code: The block.
        known: What the names of earlier blocks stand for; names of this one are added.
    """
    for node in ast.walk(tree := ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(CHECKED):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"{node.module} has no {alias.name}"
                known[alias.asname or alias.name] = getattr(module, alias.name, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = made(node.value, known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from faults_of_call(node, known)


def made(value: ast.expr, known: dict[str, Any]) -> Any:
    """Returns the class of an object that an expression makes; None if unknown."""
    while isinstance(value, ast.Call | ast.Attribute):
        value = value.func if isinstance(value, ast.Call) else value.value
    maker = known.get(value.id) if isinstance(value, ast.Name) else None
    if maker is peft.get_peft_model:
        return peft.PeftModel
    return maker if inspect.isclass(maker) and not maker.__name__.startswith("Auto") else None


def faults_of_call(call: ast.Call, known: dict[str, Any]) -> Iterator[str]:
    match call.func:
        case ast.Name(id=name):
            function = known.get(name)
            if inspect.isclass(function) and name[0].islower():
                function = function.__call__
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if known.get(name) is not None:
            homes = [known[name], *FORWARDED.get(known[name], ())]
            function = next((getattr(h, attribute) for h in homes if hasattr(h, attribute)), None)
            if function is None:
                yield f"{name} has no {attribute}"
        case _:
            return
    if not callable(function):
        return
    parameters = inspect.signature(function).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if takes_any and function.__name__ != "__call__":  # a pipeline takes them for old names alone
        return
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg not in parameters:
            yield f"{ast.unparse(call.func)} has no argument {keyword.arg}"


@pytest.mark.parametrize("page", ["diffusers.md", "peft.md"])
def test_the_names_of_the_other_library_exist(page: str):
    known: dict[str, Any] = {}
    code = [code for _, _, code in blocks(page)]
    assert len(code) >= 2
    assert [fault for each in code for fault in faults(each, known)] == []


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_every_block_of_another_library_can_be_parsed(page: str):
    for language, caption, code in blocks(page):
        assert caption
        json.loads(code) if language == "json" else ast.parse(code)
    assert (PAGES / page).read_text().count("```{code-block}") == len(blocks(page))


def test_a_name_that_the_other_library_lacks_is_noticed():
    code = """
from diffusers import StableDiffusionPipeline, StableDiffusionPipe
pipe = StableDiffusionPipeline.from_pretrained("a").to("cuda")
pipe.load_loras("b")
image = pipe("c", steps=3)
"""
    assert [*faults(code, {})] == [
        "diffusers has no StableDiffusionPipe",
        "pipe has no load_loras",
        "pipe has no argument steps",
    ]
