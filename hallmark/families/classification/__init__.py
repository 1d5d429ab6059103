"""Classification: labels, calibrated probabilities, boosted trees, feature selection, evaluation."""
