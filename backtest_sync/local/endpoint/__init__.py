"""The parts of a session's endpoint: calls, subscriptions, and what they are made of."""
