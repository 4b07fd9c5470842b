"""The classical mixture of experts, fitted by expectation-maximisation, as scikit-learn estimators."""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("geomoe.estimators needs scikit-learn: pip install 'geomoe[classical]'") from error

from geomoe.estimators.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor

__all__ = ["MixtureOfExpertsClassifier", "MixtureOfExpertsRegressor"]
