"""Policies as Linkerd's messages. Pure."""
