"""What proves: bundles, manifests, code closure, versions, replay."""
