"""What has ended is in no raw file any more, and what is left says nothing of it."""
