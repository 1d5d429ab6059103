"""Judge models: bootstrap intervals, quality gates, data drift, pictures, report and model card."""
