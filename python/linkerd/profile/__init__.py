"""ServiceProfiles from what describes a service: OpenAPI, Protocol Buffers, live traffic. Pure."""
