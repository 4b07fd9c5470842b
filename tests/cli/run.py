"""Commands, run in the process of the tests."""

from geomoe.cli.main import main


def run(capsys, *args):
    """Exit status, standard output and standard error of a command."""
    status = 0
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err
