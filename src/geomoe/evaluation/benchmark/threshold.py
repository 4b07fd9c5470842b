"""The classical way to map change: a feature that is large where something changed, and a threshold on it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError

__all__ = ["Threshold"]


class Threshold:
    """Of two classes the second wherever the one feature reaches a threshold; used as scikit-learn's are.

    The threshold is the one that gives the second class the largest F1 score in what is learned from.

    Attributes:
        classes_: that were learned, in their order.
        threshold_: that was found.
    """

    classes_: NDArray[np.int64]
    threshold_: float

    def get_params(self) -> dict[str, Any]:
        """None but the seed, of which it makes no use."""
        return {"random_state": None}

    def set_params(self, **params: Any) -> Self:
        """Nothing can be set."""
        return self

    def fit(self, rows: NDArray[np.float32], truths: NDArray[np.int64]) -> Self:
        """Learn from ``rows`` ``[N, 1]`` and their classes ``[N]``.

        Raises:
            GeomoeError: more features than one, or another number of classes than two.
        """
        from sklearn.metrics import precision_recall_curve

        self.classes_ = np.unique(truths)
        if rows.shape[1] != 1 or len(self.classes_) != 2:
            raise GeomoeError(
                f"threshold: {rows.shape[1]} features of {len(self.classes_)} classes; expected one feature, "
                "as log_ratio, and two classes"
            )
        changed = truths == self.classes_[1]
        precision, recall, thresholds = precision_recall_curve(changed, rows[:, 0], drop_intermediate=True)
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        self.threshold_ = float(thresholds[int(f1[:-1].argmax())])
        return self

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[N, 2]``, 0 or 1: which of the classes, and not how surely."""
        second = rows[:, 0] >= self.threshold_
        return np.stack([~second, second], 1).astype(np.float32)
