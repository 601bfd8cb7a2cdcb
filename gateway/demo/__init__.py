"""The scripted upstream: an OpenAI-compatible server for demonstrations, tests and benchmarks."""
