"""What programs use instead of the page: the endpoint /chat and the MCP server."""
