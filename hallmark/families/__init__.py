"""Code that tasks of one kind share: classification, forecasting, language."""
