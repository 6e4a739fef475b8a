"""A shop of small services that gives the mesh something to show: traffic, a slow path, and faults on request."""
