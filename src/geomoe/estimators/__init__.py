"""The classical mixture of experts, fitted by expectation-maximisation, as scikit-learn estimators."""

from geomoe.estimators.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor

__all__ = ["MixtureOfExpertsClassifier", "MixtureOfExpertsRegressor"]
