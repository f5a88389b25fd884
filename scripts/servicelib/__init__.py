"""Private PostgreSQL, Redis and RabbitMQ servers for tests and for a cluster on one machine.

Standard library only: it runs before the virtual environment exists. Nothing here is imported
by the product; tests reach it through `scripts/services` (see tests/support/services.py).
"""
