"""What stands between the network and the page: each file is one door that a request passes; none knows the conversation."""
