"""Values and pure logic: bytes, arithmetic and state machines, without I/O, clock, random numbers or tasks."""
