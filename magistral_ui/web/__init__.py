"""What stands between the network and the page: connections, middleware (listed in middleware.py), logins; not conversations."""
