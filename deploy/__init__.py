"""What is shipped to run the gateway, and the few programs that make some of it."""
