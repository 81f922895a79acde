"""What the service says of itself: metrics, logs and outages; it imports no other room."""
