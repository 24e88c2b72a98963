"""Durable transfer of a conversation's record from one store to another, over any backend.

Stands alone: the standard library and pydantic, nothing of the rest of Cody.

contracts     what callers see: sources, jobs, chunks, the manifest, the adapter's seven methods
errors        the canonical codes; everything else is mapped to one of them
policy        limits, checksum, what a seal must prove, back-off (pure)
chunking      a stream of messages or bytes -> chunks (pure, constant memory)
state         the life of a job: one transition table and its moves (pure)
storage       what a backend must do: eight reads and writes
clock         time that a test can step, and wake-ups
worker        claims a job, applies its chunks, retries, verifies, ends it
retention     what was abandoned, or ended long ago, is dropped
engine        the seven methods over any storage
adapters      memory (the reference); others join here
conformance   every promise of the contract, played against any adapter
"""
