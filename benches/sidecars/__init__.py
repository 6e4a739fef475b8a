"""What `proxy.py` measures with: pods, the peers that stand in them, and readings from /proc."""
