"""Who may see the served dashboard, and what every answer carries; the same however the server was started."""
