"""The node agent: it stands where kubelet and a container runtime stand."""
