"""What holds for all tests."""

import os

# Before torch is imported, and for the processes that tests start: as many tests run at a time as there are
# cores, and each has one of them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
