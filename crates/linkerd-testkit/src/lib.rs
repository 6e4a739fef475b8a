//! A fake control plane and a proxy harness for tests.
