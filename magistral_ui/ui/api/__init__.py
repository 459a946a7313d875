"""The API for programs: the endpoint /chat and the MCP server."""
