"""What decides: metrics, baselines, segments, gates, pictures, report."""
