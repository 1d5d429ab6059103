"""What several tasks share: forecasters under one contract."""
