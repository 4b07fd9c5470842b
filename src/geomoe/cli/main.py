"""``geomoe``: the command line. Each command's module is imported when the command is run."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from geomoe import __version__
from geomoe.cli.say import mute, say, with_streams
from geomoe.errors import GeomoeError

__all__ = ["main"]

_COMMANDS = {
    "upscale": ("geomoe.cli.scene", "Super-resolve a scene."),
    "predict": ("geomoe.cli.scene", "Write what a model of any kind makes of a scene."),
    "info": ("geomoe.cli.scene", "Say what is understood of a scene."),
    "verify": ("geomoe.cli.verify", "Check that a file is as it was made, and say of what."),
    "models": ("geomoe.cli.models", "List models and weights, or show a card."),
    "data": ("geomoe.cli.data", "List data sets, or say what a folder holds."),
    "evaluate": ("geomoe.cli.evaluate", "Score weights on images whose truth is known."),
    "picture": ("geomoe.cli.picture", "Draw results of several models side by side, and expert maps."),
    "reproduce": ("geomoe.cli.reproduce", "Do an audit again and compare every number."),
    "fit": ("geomoe.cli.train", "Train a model from a configuration file."),
    "convert": ("geomoe.cli.convert", "Make weights of a published checkpoint that you have."),
    "export": ("geomoe.cli.train", "Score trained weights and put the scores on their card."),
    "calibrate": ("geomoe.cli.train", "Learn what the router of weights saw in training."),
    "adapt": ("geomoe.cli.train", "Go on to learn in a new place, from images without labels."),
    "audit": ("geomoe.cli.audit", "Say whether the routing of weights earns its keep."),
    "monitor": ("geomoe.cli.monitor", "Find drift of new data, or compare weights before an update."),
    "benchmark": ("geomoe.cli.benchmark", "Train models side by side and write one table."),
}
_EXTRAS = {
    "cmcrameri": "audit",
    "distributed": "dask",
    "jinja2": "audit",
    "jsonargparse": "train",
    "lightning": "train",
    "matplotlib": "demo",
    "tensorboard": "train",
    "torchmetrics": "train",
    "yaml": "train",
}


class _Lazy(click.Group):
    """Knows its commands by name, so that ``geomoe --help`` imports neither torch nor rasterio."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geomoe")
@click.pass_context
def cli(context: click.Context) -> None:
    """Mixture-of-Experts for Earth observation."""
    # What libraries warn of is for programmers; training, which runs a user's classes, has words of its own
    # for it. Python's -W and PYTHONWARNINGS show all.
    if not sys.warnoptions and context.invoked_subcommand != "fit":
        warnings.simplefilter("ignore")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 bad input, 2 bad usage, 128 + n ended by signal n."""
    with_streams()
    _ended.clear()
    # As batch systems and lost connections end a job: without this, its temporary files would stay.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _terminate)
    try:
        cli.main(args=None if args is None else list(args), prog_name="geomoe", standalone_mode=False)
    except GeomoeError as error:
        if _ended:  # in code that is not Python's, which made an error of its own of it
            _fail_terminated(_ended[0], error)
        _fail(f"{error}{_noted(error)}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except _Terminated as end:
        _fail_terminated(end.args[0], end)
    except (click.Abort, KeyboardInterrupt) as end:
        say(f"geomoe: interrupted{_noted(end)}", err=True)
        sys.exit(130)
    except BrokenPipeError:
        mute(1)
        sys.exit(1)
    except OSError as error:  # of a disk that is full, or whose folder is gone, wherever it was met
        if error.filename is None:
            mute(1)
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}; check the disk")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(f"this command needs {error.name}; install it by: pip install 'geomoe[{extra}]'")


class _Terminated(BaseException):
    """SIGTERM or SIGHUP; cleaned up after like an interruption from the keyboard."""


_ended: list[int] = []
"""The signals that came."""


def _terminate(number: int, _: object) -> None:
    _ended.append(number)
    raise _Terminated(number)


def _fail_terminated(number: int, end: BaseException) -> NoReturn:
    say(f"geomoe: terminated{_noted(end)}", err=True)
    sys.exit(128 + number)


def _noted(error: BaseException) -> str:
    # click makes an Abort of its own of an interruption from the keyboard.
    notes = [note for e in (error, error.__cause__) for note in getattr(e, "__notes__", [])]
    return "".join(f"; {note}" for note in notes)


def _fail(message: str) -> NoReturn:
    say(f"geomoe: error: {' '.join(message.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
