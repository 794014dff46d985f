"""What a request and its stream of events say, and how another worker goes on with one: pure."""
