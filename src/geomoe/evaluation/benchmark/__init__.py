"""Models beside each other: the same budget, the same images, several seeds, one table.

config   what is compared; read, as a file says it
images   what is trained and scored on: folders, or what is held out of several sources; samples, of other
         tasks; estimators, baselines that are no networks
runs     every arm trained with every seed, scored once, resumed where it stopped
cost     parameters, operations, time and memory of a tile
table    scores with intervals and paired tests; render writes them, curves draws validation
groups   the same by sensor and source
"""

from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.evaluation.benchmark.read import read_benchmark
from geomoe.evaluation.benchmark.run import run_benchmark

__all__ = ["Arm", "Benchmark", "read_benchmark", "run_benchmark"]
