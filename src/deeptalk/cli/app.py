"""The verbs of ``deeptalk`` and what becomes of their errors."""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deeptalk.cli.assemble import assemble
from deeptalk.cli.bench import bench
from deeptalk.cli.client import client
from deeptalk.cli.convert import convert
from deeptalk.cli.doctor import doctor
from deeptalk.cli.encode import encode
from deeptalk.cli.evaluate import evaluate
from deeptalk.cli.export_verb import export
from deeptalk.cli.pairs import pairs
from deeptalk.cli.partition import partition
from deeptalk.cli.prepare import prepare
from deeptalk.cli.profile import profile
from deeptalk.cli.reproduce import reproduce
from deeptalk.cli.say import say
from deeptalk.cli.serve import serve
from deeptalk.cli.shar import shar
from deeptalk.cli.synthesise import synthesise
from deeptalk.cli.talk import talk
from deeptalk.cli.train import train
from deeptalk.cli.transcribe import transcribe
from deeptalk.errors import DeepTalkError

MISTAKE = 2
"""The exit status after a mistake of the caller."""


class Verbs(TyperGroup):
    """Tells a mistake of the caller in one line; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            return super().invoke(ctx)
        except DeepTalkError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(MISTAKE) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            print("There is no space left where the output goes.", file=sys.stderr)
            raise typer.Exit(MISTAKE) from error


app = typer.Typer(
    cls=Verbs,
    name="deeptalk",
    help="Talk to a mixture-of-experts language model that hears and speaks, and train your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    talk,
    transcribe,
    say,
    serve,
    client,
    prepare,
    synthesise,
    encode,
    shar,
    assemble,
    train,
    profile,
    partition,
    pairs,
    export,
    convert,
    doctor,
    reproduce,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(evaluate, name="eval")
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Talk to a mixture-of-experts language model that hears and speaks, and train your own."""
    if version:
        from importlib.metadata import version as installed

        print(installed("deeptalk"))
        raise typer.Exit()


def main() -> None:
    """Run the command line."""
    app()
