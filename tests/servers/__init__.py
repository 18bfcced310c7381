"""Real servers for the tests: each runs on free loopback ports in a folder of its own."""
