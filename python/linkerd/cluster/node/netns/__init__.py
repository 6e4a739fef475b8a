"""The pod network: addresses, and a routed veth pair per pod."""
