"""The page of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from streaming.cli import main

_HEAD = """<!-- written by: python -m deploy.pages -->

# The command line

Every command says the same with `--help`. Exit status: 0 done, 1 a problem (the message says what to do), 2 wrong
usage; of `leeway retrain` see [Training](../training.md#exit-status).
"""


def page() -> str:
    """Return the page in Markdown."""
    context = click.Context(main, info_name="leeway")
    return _HEAD + "".join(_command(main, context, 2))


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    if context.parent is not None:
        yield f"\n{'#' * level} {context.command_path}\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"\n`{usage}`\n\n{_words(command.help or '')}\n"
    options = [
        each for each in command.get_params(context) if isinstance(each, click.Option) and "--help" not in each.opts
    ]
    if options:
        yield "\n| option | meaning |\n|---|---|\n"
    for option in options:
        if record := option.get_help_record(context):
            yield f"| `{_cell(record[0])}` | {_cell(_words(record[1]))} |\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (below := command.get_command(context, name)) is not None and not below.hidden:
                inner = click.Context(below, info_name=name, parent=context)
                yield from _command(below, inner, level + bool(context.parent))


def _words(text: str) -> str:
    """Return help as Markdown: what stands in angle brackets or stars is meant as it stands."""
    plain = inspect.cleandoc(text).replace("\b\n", "")
    return "".join(
        part if place % 2 else part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
        for place, part in enumerate(_split(plain))
    )


def _split(text: str) -> list[str]:
    """Return parts outside and inside of backquotes, by turns."""
    pieces = text.split("`")
    return [f"`{piece}`" if place % 2 else piece for place, piece in enumerate(pieces)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
