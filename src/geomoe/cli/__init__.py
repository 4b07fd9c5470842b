"""The ``geomoe`` command."""
