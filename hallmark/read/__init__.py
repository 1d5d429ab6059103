"""Where rows come from and how they are checked: sources, schemas, validation, splits, panels."""
