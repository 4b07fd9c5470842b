"""Training tasks: Lightning modules, their data modules and callbacks."""
