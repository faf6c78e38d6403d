"""Text in, streamed text out: the engine with its checkpoints, requests that own the base in turns, sampling, sweeps.

From outside: `engine.Engine`, `sweep.sweep` and `sweep.stream_sweep`, `parting.part` and `parting.go_on`.
`generate` and `session` are the way of one request.
"""
